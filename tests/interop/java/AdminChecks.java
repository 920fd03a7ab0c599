import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListConfigResourcesOptions;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.QuorumInfo;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicaAssignmentException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.LogDirNotFoundException;
import org.apache.kafka.common.errors.NoReassignmentInProgressException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownMemberIdException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** The admin client. */
final class AdminChecks {
    static void register(Map<String, Check> checks) {
        checks.put("admin-topics", AdminChecks::topics);
        checks.put("admin-impossible-topics", AdminChecks::impossibleTopics);
        checks.put("admin-topic-partitions", AdminChecks::topicPartitions);
        checks.put("admin-partitions", AdminChecks::partitions);
        checks.put("admin-configs", AdminChecks::configs);
        checks.put("admin-list-offsets", AdminChecks::listOffsets);
        checks.put("admin-delete-records", AdminChecks::deleteRecords);
        checks.put("admin-groups", AdminChecks::groups);
        checks.put("admin-group-offsets", AdminChecks::groupOffsets);
        checks.put("admin-remove-members", AdminChecks::removeMembers);
        checks.put("admin-cluster", AdminChecks::cluster);
        checks.put("admin-log-dirs", AdminChecks::logDirs);
        checks.put("admin-replicas", AdminChecks::replicas);
        checks.put("admin-config-resources", AdminChecks::configResources);
    }

    private static void topics(Place place) throws Exception {
        try (Admin admin = place.admin()) {
            NewTopic topic = new NewTopic(place.name(), 3, (short) 1).configs(Map.of("retention.ms", "1234567"));
            var created = admin.createTopics(List.of(topic));
            Uuid id = Place.get(created.topicId(place.name()));
            Place.expect("partitions", 3, Place.get(created.numPartitions(place.name())));
            Place.expect("a setting", "1234567", Place.get(created.config(place.name())).get("retention.ms").value());
            Place.awaitPartitions(admin, place.name(), 3);
            Place.expectError(TopicExistsException.class, () -> Place.get(admin.createTopics(List.of(topic)).all()));
            Place.expect("listed", id, Place.get(admin.listTopics().namesToListings()).get(place.name()).topicId());
            TopicDescription described = Place.get(admin.describeTopics(TopicCollection.ofTopicIds(List.of(id)))
                .allTopicIds()).get(id);
            Place.expect("name by id", place.name(), described.name());
            Place.expect("internal", false, described.isInternal());
            Place.get(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
            Place.until("the end of the topic", () -> !Place.get(admin.listTopics().names()).contains(place.name()));
            Place.expectError(UnknownTopicOrPartitionException.class,
                () -> Place.get(admin.deleteTopics(List.of(place.name())).all()));
            Place.expectError(UnknownTopicIdException.class,
                () -> Place.get(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all()));
            Place.expectError(UnknownTopicOrPartitionException.class,
                () -> Place.get(admin.describeTopics(List.of(place.name())).allTopicNames()));
        }
    }

    private static void impossibleTopics(Place place) throws Exception {
        try (Admin admin = place.admin()) {
            var created = admin.createTopics(List.of(
                new NewTopic("a/b", 1, (short) 1), new NewTopic(place.name() + "-none", 0, (short) 1),
                new NewTopic(place.name() + "-many", 1, (short) 7),
                new NewTopic(place.name() + "-bad", 1, (short) 1).configs(Map.of("retention.ms", "soon")),
                new NewTopic(place.name() + "-assigned", Map.of(0, List.of(4711))))).values();
            Place.expectError(InvalidTopicException.class, () -> Place.get(created.get("a/b")));
            Place.expectError(InvalidPartitionsException.class, () -> Place.get(created.get(place.name() + "-none")));
            Place.expectError(
                InvalidReplicationFactorException.class, () -> Place.get(created.get(place.name() + "-many")));
            Place.expectError(InvalidConfigurationException.class, () -> Place.get(created.get(place.name() + "-bad")));
            Place.expectError(InvalidReplicaAssignmentException.class,
                () -> Place.get(created.get(place.name() + "-assigned")));
            Place.get(admin.createTopics(
                List.of(new NewTopic(place.name(), 1, (short) 1)), new CreateTopicsOptions().validateOnly(true)).all());
            Set<String> names = Place.get(admin.listTopics().names());
            Place.expect("topics made", 0L, names.stream().filter(name -> name.startsWith(place.name())).count());
        }
    }

    /** describeTopics asks for a page at a time (DescribeTopicPartitions), here of two partitions. */
    private static void topicPartitions(Place place) throws Exception {
        place.createTopic(5);
        try (Admin admin = place.admin()) {
            TopicDescription topic = Place.get(admin.describeTopics(
                List.of(place.name()), new DescribeTopicsOptions().partitionSizeLimitPerResponse(2)).allTopicNames())
                .get(place.name());
            Place.expect("partitions", List.of(0, 1, 2, 3, 4),
                topic.partitions().stream().map(TopicPartitionInfo::partition).toList());
            for (TopicPartitionInfo partition : topic.partitions()) {
                Place.expect("replicas", List.of(partition.leader()), partition.replicas());
                Place.expect("in sync", List.of(partition.leader()), partition.isr());
            }
        }
    }

    private static void partitions(Place place) throws Exception {
        place.createTopic(2);
        try (Admin admin = place.admin()) {
            Place.get(admin.createPartitions(Map.of(place.name(), NewPartitions.increaseTo(4))).all());
            Place.awaitPartitions(admin, place.name(), 4);
            Place.expectError(InvalidPartitionsException.class,
                () -> Place.get(admin.createPartitions(Map.of(place.name(), NewPartitions.increaseTo(3))).all()));
            Place.expectError(InvalidPartitionsException.class,
                () -> Place.get(admin.createPartitions(Map.of(place.name(), NewPartitions.increaseTo(4))).all()));
            Place.expectError(UnknownTopicOrPartitionException.class, () -> Place.get(
                admin.createPartitions(Map.of(place.name() + "-none", NewPartitions.increaseTo(4))).all()));
        }
    }

    private static void configs(Place place) throws Exception {
        place.createTopic(1);
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, place.name());
        try (Admin admin = place.admin()) {
            alter(admin, topic, OpType.SET, "retention.ms", "7654321");
            alter(admin, topic, OpType.APPEND, "cleanup.policy", "compact");
            awaitConfig(admin, topic, "retention.ms", "7654321", ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
            awaitConfig(admin, topic, "cleanup.policy", "delete,compact", ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
            alter(admin, topic, OpType.SUBTRACT, "cleanup.policy", "delete");
            awaitConfig(admin, topic, "cleanup.policy", "compact", ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
            alter(admin, topic, OpType.DELETE, "retention.ms", "");
            awaitConfig(admin, topic, "retention.ms", "604800000", ConfigEntry.ConfigSource.DEFAULT_CONFIG);
            Place.expectError(InvalidConfigurationException.class,
                () -> { alter(admin, topic, OpType.SET, "retention.ms", "soon"); return null; });
            Place.expectError(InvalidConfigurationException.class,
                () -> { alter(admin, topic, OpType.SET, "no.such.setting", "1"); return null; });
            ConfigResource none = new ConfigResource(ConfigResource.Type.TOPIC, place.name() + "-none");
            Place.expectError(UnknownTopicOrPartitionException.class,
                () -> Place.get(admin.describeConfigs(List.of(none)).all()));
            Config described = Place.get(admin.describeConfigs(List.of(topic),
                new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true)).all()).get(topic);
            Place.expect("type", ConfigEntry.ConfigType.LONG, described.get("retention.ms").type());
            Place.expect("synonym", "cleanup.policy", described.get("cleanup.policy").synonyms().get(0).name());
            int node = Place.get(admin.describeCluster().nodes()).iterator().next().id();
            ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, Integer.toString(node));
            Config settings = Place.get(admin.describeConfigs(List.of(broker)).all()).get(broker);
            Place.expect("num.partitions", "1", settings.get("num.partitions").value());
        }
    }

    private static void alter(Admin admin, ConfigResource where, OpType operation, String key, String value)
        throws Exception {
        AlterConfigOp change = new AlterConfigOp(new ConfigEntry(key, value), operation);
        Place.get(admin.incrementalAlterConfigs(Map.of(where, List.of(change))).all());
    }

    private static void awaitConfig(
        Admin admin, ConfigResource where, String key, String value, ConfigEntry.ConfigSource source) throws Exception {
        Place.until(key + " as " + value, () -> {
            ConfigEntry entry = Place.get(admin.describeConfigs(List.of(where)).all()).get(where).get(key);
            return entry.value().equals(value) && entry.source() == source;
        });
    }

    private static void listOffsets(Place place) throws Exception {
        place.createTopic(2);
        place.produceNumbers(10, ProducerChecks.START_MS);
        try (Admin admin = place.admin()) {
            long at = ProducerChecks.START_MS + 4500;
            List<OffsetSpec> specs = List.of(
                OffsetSpec.earliest(), OffsetSpec.latest(), OffsetSpec.maxTimestamp(), OffsetSpec.earliestLocal(),
                OffsetSpec.forTimestamp(at), OffsetSpec.forTimestamp(at + 1_000_000));
            List<Long> wanted = List.of(0L, 10L, 9L, 0L, 5L, -1L);
            List<Long> wantedOfEmpty = List.of(0L, 0L, -1L, 0L, -1L, -1L);
            for (int index = 0; index < specs.size(); index++) {
                Map<TopicPartition, ListOffsetsResultInfo> found = Place.get(admin.listOffsets(Map.of(
                    place.partition(0), specs.get(index), place.partition(1), specs.get(index))).all());
                String what = "offset by " + specs.get(index).getClass().getSimpleName();
                Place.expect(what, wanted.get(index), found.get(place.partition(0)).offset());
                Place.expect(what + ", empty", wantedOfEmpty.get(index), found.get(place.partition(1)).offset());
            }
        }
    }

    private static void deleteRecords(Place place) throws Exception {
        place.createTopic(1);
        place.produceNumbers(10, ProducerChecks.START_MS);
        TopicPartition first = place.partition(0);
        try (Admin admin = place.admin()) {
            Place.expect("first offset", 4L,
                Place.get(admin.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(4))).lowWatermarks().get(first))
                    .lowWatermark());
            Place.expect("first offset, listed", 4L,
                Place.get(admin.listOffsets(Map.of(first, OffsetSpec.earliest())).partitionResult(first)).offset());
            Place.expectError(OffsetOutOfRangeException.class,
                () -> Place.get(admin.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(11))).all()));
            // -1 is the high watermark.
            Place.get(admin.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(-1))).all());
            Place.expect("first offset at the end", 10L,
                Place.get(admin.listOffsets(Map.of(first, OffsetSpec.earliest())).partitionResult(first)).offset());
        }
    }

    private static void groups(Place place) throws Exception {
        place.createTopic(2);
        place.produceNumbers(10, ProducerChecks.START_MS);
        try (Admin admin = place.admin()) {
            try (Consumer<String, String> member = place.member("client.id", "a-member", "group.instance.id", "one")) {
                member.subscribe(List.of(place.name()));
                Place.take(member, 10);
                member.commitSync();
                ConsumerGroupDescription group = describe(admin, place.name());
                Place.expect("state", GroupState.STABLE, group.groupState());
                Place.expect("assignor", "range", group.partitionAssignor());
                Place.expect("members", 1, group.members().size());
                MemberDescription one = group.members().iterator().next();
                Place.expect("client", "a-member", one.clientId());
                Place.expect("instance", "one", one.groupInstanceId().orElse(""));
                Place.expect("assignment", Set.of(place.partition(0), place.partition(1)),
                    one.assignment().topicPartitions());
                Place.expectError(GroupNotEmptyException.class,
                    () -> Place.get(admin.deleteConsumerGroups(List.of(place.name())).all()));
            }
            Collection<GroupListing> listed = Place.get(admin.listGroups().all());
            GroupListing listing = listed.stream().filter(found -> found.groupId().equals(place.name())).findFirst()
                .orElseThrow(() -> new AssertionError("the group is not listed"));
            Place.expect("protocol", "consumer", listing.protocol());
            Place.get(admin.removeMembersFromConsumerGroup(
                place.name(), new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("one")))).all());
            Place.until("the empty group", () -> describe(admin, place.name()).groupState() == GroupState.EMPTY);
            Place.get(admin.deleteConsumerGroups(List.of(place.name())).all());
            Place.expectError(GroupIdNotFoundException.class,
                () -> Place.get(admin.deleteConsumerGroups(List.of(place.name())).all()));
            Place.expectError(GroupIdNotFoundException.class, () -> describe(admin, place.name()));
        }
    }

    private static ConsumerGroupDescription describe(Admin admin, String group) throws Exception {
        return Place.get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
    }

    private static void groupOffsets(Place place) throws Exception {
        place.createTopic(2);
        TopicPartition first = place.partition(0);
        TopicPartition second = place.partition(1);
        try (Admin admin = place.admin()) {
            Map<TopicPartition, OffsetAndMetadata> offsets =
                Map.of(first, new OffsetAndMetadata(5, "by hand"), second, new OffsetAndMetadata(7));
            Place.get(admin.alterConsumerGroupOffsets(place.name(), offsets).all());
            Place.expect("offsets", offsets,
                Place.get(admin.listConsumerGroupOffsets(place.name()).partitionsToOffsetAndMetadata()));
            Map<String, ListConsumerGroupOffsetsSpec> some = Map.of(
                place.name(), new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(second)),
                place.name() + "-none", new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(first)));
            var found = Place.get(admin.listConsumerGroupOffsets(some).all());
            Place.expect("of one partition", Map.of(second, new OffsetAndMetadata(7)), found.get(place.name()));
            Place.expect("of no group", null, found.get(place.name() + "-none").get(first));
            try (Consumer<String, String> member = place.member()) {
                member.subscribe(List.of(place.name()));
                Place.until("the member", () -> {
                    member.poll(Place.POLL);
                    return member.assignment().size() == 2;
                });
                Place.expectError(GroupSubscribedToTopicException.class, () -> Place.get(
                    admin.deleteConsumerGroupOffsets(place.name(), Set.of(first)).partitionResult(first)));
                Place.expectError(UnknownMemberIdException.class,
                    () -> Place.get(admin.alterConsumerGroupOffsets(place.name(), offsets).all()));
            }
            Place.get(admin.deleteConsumerGroupOffsets(place.name(), Set.of(first)).all());
            Place.expect("offsets left", Set.of(second),
                Place.get(admin.listConsumerGroupOffsets(place.name()).partitionsToOffsetAndMetadata()).keySet());
            Place.expectError(GroupIdNotFoundException.class, () -> Place.get(
                admin.deleteConsumerGroupOffsets(place.name() + "-none", Set.of(first)).all()));
        }
    }

    private static void removeMembers(Place place) throws Exception {
        place.createTopic(1);
        try (Admin admin = place.admin(); Consumer<String, String> member = place.member()) {
            member.subscribe(List.of(place.name()));
            Place.until("the member", () -> {
                member.poll(Place.POLL);
                return !member.assignment().isEmpty();
            });
            String id = member.groupMetadata().memberId();
            Place.get(admin.removeMembersFromConsumerGroup(
                place.name(), new RemoveMembersFromConsumerGroupOptions()).all());
            // It joins again under a new id.
            Place.until("the member's return", () -> {
                member.poll(Place.POLL);
                return !member.assignment().isEmpty() && !member.groupMetadata().memberId().equals(id);
            });
        }
    }

    private static void cluster(Place place) throws Exception {
        try (Admin admin = place.admin()) {
            DescribeClusterResult described = admin.describeCluster();
            List<Node> nodes = new ArrayList<>(Place.get(described.nodes()));
            Place.expect("nodes", 1, nodes.size());
            Place.expect("address", place.bootstrap(), nodes.get(0).host() + ":" + nodes.get(0).port());
            Place.expect("controller", nodes.get(0), Place.get(described.controller()));
            Place.expect("a cluster id", false, Place.get(described.clusterId()).isEmpty());
        }
    }

    private static void logDirs(Place place) throws Exception {
        place.createTopic(2);
        place.produceNumbers(10, ProducerChecks.START_MS);
        try (Admin admin = place.admin()) {
            int node = Place.get(admin.describeCluster().nodes()).iterator().next().id();
            Map<String, LogDirDescription> found =
                Place.get(admin.describeLogDirs(List.of(node)).allDescriptions()).get(node);
            Set<String> seen = new TreeSet<>();
            for (LogDirDescription directory : found.values()) {
                Place.expect("error", null, directory.error());
                directory.replicaInfos().forEach((partition, replica) -> {
                    if (partition.topic().equals(place.name())) {
                        seen.add(partition.partition() + (replica.size() > 0 ? " has records" : " is empty"));
                        Place.expect("lag", 0L, replica.offsetLag());
                    }
                });
            }
            Place.expect("partitions", Set.of("0 has records", "1 is empty"), seen);
        }
    }

    /** On one node nothing can move, and whoever asks for it is told so. */
    private static void replicas(Place place) throws Exception {
        place.createTopic(1);
        TopicPartition first = place.partition(0);
        TopicPartition none = new TopicPartition(place.name() + "-none", 0);
        try (Admin admin = place.admin()) {
            int node = Place.get(admin.describeCluster().nodes()).iterator().next().id();
            Map<TopicPartition, Optional<Throwable>> elected =
                Place.get(admin.electLeaders(ElectionType.PREFERRED, Set.of(first, none)).partitions());
            Place.expect("election", ElectionNotNeededException.class, elected.get(first).orElseThrow().getClass());
            Place.expect("election of nothing", UnknownTopicOrPartitionException.class,
                elected.get(none).orElseThrow().getClass());
            Place.get(admin.electLeaders(ElectionType.PREFERRED, null).all());
            Optional<NewPartitionReassignment> here = Optional.of(new NewPartitionReassignment(List.of(node)));
            Optional<NewPartitionReassignment> there = Optional.of(new NewPartitionReassignment(List.of(node + 1)));
            Place.get(admin.alterPartitionReassignments(Map.of(first, here)).all());
            Place.expectError(InvalidReplicaAssignmentException.class,
                () -> Place.get(admin.alterPartitionReassignments(Map.of(first, there)).all()));
            Place.expectError(NoReassignmentInProgressException.class,
                () -> Place.get(admin.alterPartitionReassignments(Map.of(first, Optional.empty())).all()));
            Place.expectError(UnknownTopicOrPartitionException.class,
                () -> Place.get(admin.alterPartitionReassignments(Map.of(none, here)).all()));
            Place.expect("reassignments", Map.of(), Place.get(admin.listPartitionReassignments().reassignments()));
            String directory = Place.get(admin.describeLogDirs(List.of(node)).allDescriptions()).get(node)
                .keySet().iterator().next();
            TopicPartitionReplica replica = new TopicPartitionReplica(place.name(), 0, node);
            Place.get(admin.alterReplicaLogDirs(Map.of(replica, directory)).all());
            Place.expectError(LogDirNotFoundException.class,
                () -> Place.get(admin.alterReplicaLogDirs(Map.of(replica, directory + "-none")).all()));
            QuorumInfo quorum = Place.get(admin.describeMetadataQuorum().quorumInfo());
            Place.expect("leader", node, quorum.leaderId());
            Place.expect("voters", List.of(node),
                quorum.voters().stream().map(QuorumInfo.ReplicaState::replicaId).toList());
        }
    }

    private static void configResources(Place place) throws Exception {
        place.createTopic(1);
        try (Admin admin = place.admin()) {
            String node = Place.get(admin.describeCluster().nodes()).iterator().next().idString();
            Collection<ConfigResource> topics =
                Place.get(admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC), new ListConfigResourcesOptions()).all());
            Place.expect("the topic", true,
                topics.contains(new ConfigResource(ConfigResource.Type.TOPIC, place.name())));
            Place.expect("topics only", Set.of(ConfigResource.Type.TOPIC),
                topics.stream().map(ConfigResource::type).collect(Collectors.toSet()));
            Place.expect("this node", true, Place.get(admin.listConfigResources().all())
                .contains(new ConfigResource(ConfigResource.Type.BROKER, node)));
        }
    }
}
