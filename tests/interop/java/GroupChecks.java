import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;

/** Members of one group in one thread: each of them moves when it is polled. */
final class GroupChecks {
    private static final String ASSIGNOR = "partition.assignment.strategy";

    static void register(Map<String, Check> checks) {
        checks.put("group-eager-range", GroupChecks::eagerRange);
        checks.put("group-cooperative-sticky", GroupChecks::cooperativeSticky);
        checks.put("group-static-membership", GroupChecks::staticMembership);
        checks.put("group-static-fenced", GroupChecks::staticFenced);
        checks.put("group-late-commit", GroupChecks::lateCommit);
    }

    /** What a member was given and what was taken from it. */
    private static final class Moves implements ConsumerRebalanceListener {
        final List<Set<TopicPartition>> given = new ArrayList<>();
        final List<Set<TopicPartition>> taken = new ArrayList<>();

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            given.add(new HashSet<>(partitions));
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            taken.add(new HashSet<>(partitions));
        }
    }

    /** Poll all of them until each holds as many partitions as wanted; the values that came meanwhile. */
    private static List<String> settle(List<Consumer<String, String>> members, List<Integer> wanted) throws Exception {
        List<String> values = new ArrayList<>();
        Place.until("assignments of " + wanted, () -> {
            for (Consumer<String, String> member : members) {
                for (ConsumerRecord<String, String> record : member.poll(Place.POLL)) {
                    values.add(record.value());
                }
            }
            return members.stream().map(member -> member.assignment().size()).toList().equals(wanted);
        });
        return values;
    }

    private static void produceEverywhere(Place place, String topic, int partitions, String prefix) throws Exception {
        try (Producer<String, String> producer = place.producer()) {
            for (int number = 0; number < 5 * partitions; number++) {
                producer.send(new ProducerRecord<>(topic, number % partitions, null, prefix + number));
            }
            producer.flush();
        }
    }

    private static void eagerRange(Place place) throws Exception {
        List<String> topics = List.of(place.name() + "-a", place.name() + "-b");
        for (String topic : topics) {
            place.createTopic(topic, 3, Map.of());
            produceEverywhere(place, topic, 3, topic + ":");
        }
        // Static members are in the order of their names: the first one has partitions 0 and 1 of both topics.
        Object[] one = {ASSIGNOR, RangeAssignor.class.getName(), "group.instance.id", place.name() + "-one"};
        Object[] two = {ASSIGNOR, RangeAssignor.class.getName(), "group.instance.id", place.name() + "-two"};
        Moves moves = new Moves();
        try (Consumer<String, String> first = place.member(one); Consumer<String, String> second = place.member(two)) {
            first.subscribe(topics, moves);
            List<String> values = settle(List.of(first), List.of(6));
            while (values.size() < 30) {
                first.poll(Place.POLL).forEach(record -> values.add(record.value()));
            }
            first.commitSync();
            second.subscribe(topics);
            Place.expect("nothing is read again", List.of(), settle(List.of(first, second), List.of(4, 2)).stream()
                .filter(values::contains).toList());
            Place.expect("first given", 6, moves.given.get(0).size());
            Place.expect("an eager member gives up everything", moves.given.get(0), moves.taken.get(0));
            for (String topic : topics) {
                Place.expect("share of " + topic, List.of(2, 1), List.of(count(first, topic), count(second, topic)));
            }
            Set<TopicPartition> all = new HashSet<>(first.assignment());
            all.addAll(second.assignment());
            Place.expect("together", 6, all.size());
        }
    }

    private static int count(Consumer<String, String> member, String topic) {
        return (int) member.assignment().stream().filter(partition -> partition.topic().equals(topic)).count();
    }

    private static void cooperativeSticky(Place place) throws Exception {
        place.createTopic(6);
        Object[] settings = {ASSIGNOR, CooperativeStickyAssignor.class.getName()};
        Moves moves = new Moves();
        try (Consumer<String, String> first = place.member(settings); Consumer<String, String> second = place.member(settings)) {
            first.subscribe(List.of(place.name()), moves);
            settle(List.of(first), List.of(6));
            second.subscribe(List.of(place.name()));
            settle(List.of(first, second), List.of(3, 3));
            Set<TopicPartition> taken = moves.taken.stream().flatMap(Set::stream).collect(Collectors.toSet());
            Place.expect("what was taken went to the second", second.assignment(), taken);
            Set<TopicPartition> kept = first.assignment();
            second.close();
            settle(List.of(first), List.of(6));
            taken = moves.taken.stream().flatMap(Set::stream).collect(Collectors.toSet());
            taken.retainAll(kept);
            Place.expect("what was kept was never taken", Set.of(), taken);
            produceEverywhere(place, place.name(), 6, "");
            Place.expect("different values", 30, Place.take(first, 30).stream().map(ConsumerRecord::value)
                .collect(Collectors.toCollection(TreeSet::new)).size());
        }
    }

    private static void staticMembership(Place place) throws Exception {
        place.createTopic(4);
        Object[] one = {"group.instance.id", place.name() + "-one", "session.timeout.ms", "20000"};
        Object[] two = {"group.instance.id", place.name() + "-two", "session.timeout.ms", "20000"};
        try (Consumer<String, String> stays = place.member(two)) {
            Set<TopicPartition> before;
            int generation;
            try (Consumer<String, String> goes = place.member(one)) {
                goes.subscribe(List.of(place.name()));
                stays.subscribe(List.of(place.name()));
                settle(List.of(goes, stays), List.of(2, 2));
                before = Set.copyOf(goes.assignment());
                generation = stays.groupMetadata().generationId();
            }
            // Gone without leaving, and back before its session ends: nobody is disturbed.
            try (Consumer<String, String> returns = place.member(one)) {
                returns.subscribe(List.of(place.name()));
                settle(List.of(returns, stays), List.of(2, 2));
                Place.expect("assignment", before, returns.assignment());
                Place.expect("generation", generation, returns.groupMetadata().generationId());
                Place.expect("generation of the other", generation, stays.groupMetadata().generationId());
            }
        }
    }

    private static void staticFenced(Place place) throws Exception {
        place.createTopic(1);
        Object[] settings = {"group.instance.id", place.name() + "-same"};
        try (Consumer<String, String> first = place.member(settings); Consumer<String, String> second = place.member(settings)) {
            first.subscribe(List.of(place.name()));
            settle(List.of(first), List.of(1));
            second.subscribe(List.of(place.name()));
            settle(List.of(second), List.of(1));
            Place.expectError(FencedInstanceIdException.class, () -> {
                Place.take(first, 1);
                return null;
            });
        }
    }

    /** Whoever lost its membership cannot commit over the one who came after it. */
    private static void lateCommit(Place place) throws Exception {
        place.createTopic(1);
        place.produceNumbers(10, ProducerChecks.START_MS);
        try (Consumer<String, String> slow = place.member("max.poll.interval.ms", "1000", "max.poll.records", "5");
            Consumer<String, String> next = place.member()) {
            slow.subscribe(List.of(place.name()));
            Place.take(slow, 5);
            // Without a poll for its interval it leaves the group; the next one gets everything.
            next.subscribe(List.of(place.name()));
            Place.take(next, 10);
            next.commitSync();
            Place.expectError(CommitFailedException.class, () -> {
                slow.commitSync();
                return null;
            });
            Place.expect("committed", 10L, next.committed(Set.of(place.partition(0))).get(place.partition(0)).offset());
        }
    }
}
