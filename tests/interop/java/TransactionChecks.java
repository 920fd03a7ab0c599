import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.FeatureMetadata;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.admin.TransactionListing;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.TransactionalIdNotFoundException;

/** Transactions as KIP-98 promises them, with the epochs of KIP-890 that this client asks for. */
final class TransactionChecks {
    private static final String COMMITTED = "read_committed";
    private static final String UNCOMMITTED = "read_uncommitted";
    private static final Duration SILENCE = Duration.ofSeconds(1);

    static void register(Map<String, Check> checks) {
        checks.put("transaction-commit", TransactionChecks::commit);
        checks.put("transaction-abort", TransactionChecks::abort);
        checks.put("transaction-empty", TransactionChecks::empty);
        checks.put("transaction-waiting", TransactionChecks::waiting);
        checks.put("transaction-offsets", TransactionChecks::offsets);
        checks.put("transaction-fencing", TransactionChecks::fencing);
        checks.put("transaction-timeout", TransactionChecks::timeout);
        checks.put("transaction-large", TransactionChecks::large);
        checks.put("transaction-interleaved", TransactionChecks::interleaved);
        checks.put("transaction-epochs", TransactionChecks::epochs);
        checks.put("transaction-admin", TransactionChecks::admin);
        checks.put("transaction-admin-abort", TransactionChecks::adminAbort);
        checks.put("transaction-admin-fence", TransactionChecks::adminFence);
        checks.put("transaction-features", TransactionChecks::features);
    }

    private static Producer<String, String> producer(Place place, String id, Object... settings) {
        List<Object> all = new ArrayList<>(List.of(settings));
        all.addAll(List.of("transactional.id", place.name() + id));
        Producer<String, String> producer = place.producer(all.toArray());
        producer.initTransactions();
        return producer;
    }

    /** In the log when it returns. */
    private static void send(Place place, Producer<String, String> producer, int partition, String... values) throws Exception {
        for (String value : values) {
            Place.get(producer.send(new ProducerRecord<>(place.name(), partition, null, value)));
        }
    }

    /** What is read up to the end that this isolation has. */
    private static List<String> values(Place place, String isolation, int partitions) {
        List<String> values = new ArrayList<>();
        try (Consumer<String, String> consumer = place.consumer("isolation.level", isolation, "fetch.max.wait.ms", "20")) {
            for (int number = 0; number < partitions; number++) {
                TopicPartition partition = place.partition(number);
                consumer.assign(List.of(partition));
                consumer.seekToBeginning(List.of(partition));
                long end = consumer.endOffsets(List.of(partition)).get(partition);
                long deadline = System.nanoTime() + Place.PATIENCE.toNanos();
                while (consumer.position(partition) < end) {
                    if (System.nanoTime() > deadline) {
                        throw new AssertionError("stuck at " + consumer.position(partition) + " of " + end);
                    }
                    consumer.poll(Place.POLL).forEach(record -> values.add(record.value()));
                }
            }
        }
        return values;
    }

    private static long end(Place place, Admin admin, IsolationLevel isolation) throws Exception {
        TopicPartition partition = place.partition(0);
        return Place.get(admin.listOffsets(Map.of(partition, OffsetSpec.latest()), new ListOffsetsOptions(isolation))
            .partitionResult(partition)).offset();
    }

    private static void commit(Place place) throws Exception {
        place.createTopic(2);
        try (Producer<String, String> producer = producer(place, "")) {
            producer.beginTransaction();
            send(place, producer, 0, "a", "b");
            send(place, producer, 1, "c");
            Place.expect("while it is open", List.of(), values(place, COMMITTED, 2));
            Place.expect("uncommitted", List.of("a", "b", "c"), values(place, UNCOMMITTED, 2));
            producer.commitTransaction();
            Place.until("the commit", () -> values(place, COMMITTED, 2).equals(List.of("a", "b", "c")));
        }
    }

    private static void abort(Place place) throws Exception {
        place.createTopic(1);
        try (Producer<String, String> producer = producer(place, ""); Admin admin = place.admin()) {
            producer.beginTransaction();
            send(place, producer, 0, "kept");
            producer.commitTransaction();
            producer.beginTransaction();
            send(place, producer, 0, "aborted");
            Place.until("the end of the first", () -> end(place, admin, IsolationLevel.READ_COMMITTED) == 2);
            producer.abortTransaction();
            producer.beginTransaction();
            send(place, producer, 0, "kept too");
            producer.commitTransaction();
            Place.until("the last marker", () -> end(place, admin, IsolationLevel.READ_COMMITTED) == 6);
            Place.expect("committed", List.of("kept", "kept too"), values(place, COMMITTED, 1));
            Place.expect("everything", List.of("kept", "aborted", "kept too"), values(place, UNCOMMITTED, 1));
        }
    }

    private static void empty(Place place) throws Exception {
        place.createTopic(1);
        try (Producer<String, String> producer = producer(place, ""); Admin admin = place.admin()) {
            for (int turn = 0; turn < 3; turn++) {
                producer.beginTransaction();
                producer.commitTransaction();
                producer.beginTransaction();
                producer.abortTransaction();
            }
            Place.expect("end", 0L, end(place, admin, IsolationLevel.READ_UNCOMMITTED));
            producer.beginTransaction();
            send(place, producer, 0, "not empty");
            producer.commitTransaction();
            Place.until("the commit", () -> values(place, COMMITTED, 1).equals(List.of("not empty")));
        }
    }

    /** A consumer at the last stable offset gets nothing, and the records as soon as the transaction ends. */
    private static void waiting(Place place) throws Exception {
        place.createTopic(1);
        Producer<String, String> producer = producer(place, "");
        // A fetch that waits for longer than anybody else here.
        Consumer<String, String> consumer = place.consumer("isolation.level", COMMITTED, "fetch.max.wait.ms", "6000");
        try (producer; consumer) {
            consumer.assign(List.of(place.partition(0)));
            producer.beginTransaction();
            send(place, producer, 0, "a", "b");
            Place.expect("records of an open transaction", 0, consumer.poll(SILENCE).count());
            producer.commitTransaction();
            long began = System.nanoTime();
            Place.take(consumer, 2);
            long seconds = Duration.ofNanos(System.nanoTime() - began).toSeconds();
            if (seconds >= 4) {
                throw new AssertionError("the fetch slept for " + seconds + " s after the end of the transaction");
            }
        }
    }

    private static void offsets(Place place) throws Exception {
        place.createTopic(1);
        place.produceNumbers(9, ProducerChecks.START_MS);
        String sink = place.name() + "-out";
        place.createTopic(sink, 1, Map.of());
        Producer<String, String> producer = producer(place, "");
        Consumer<String, String> member = place.member("isolation.level", COMMITTED);
        try (producer; member) {
            member.subscribe(List.of(place.name()));
            List<ConsumerRecord<String, String>> records = Place.take(member, 9);
            transform(place, producer, member, sink, records.subList(0, 3));
            producer.commitTransaction();
            Place.expect("after the commit", 3L, committed(place, member));
            transform(place, producer, member, sink, records.subList(3, 6));
            producer.abortTransaction();
            Place.expect("after the abort", 3L, committed(place, member));
            transform(place, producer, member, sink, records.subList(3, 9));
            producer.commitTransaction();
            Place.expect("after the last commit", 9L, committed(place, member));
        }
        Place.until("the output", () -> values(new Place(place.bootstrap(), sink), COMMITTED, 1)
            .equals(List.of("0!", "1!", "2!", "3!", "4!", "5!", "6!", "7!", "8!")));
    }

    private static void transform(
        Place place, Producer<String, String> producer, Consumer<String, String> member, String sink,
        List<ConsumerRecord<String, String>> records
    ) {
        producer.beginTransaction();
        records.forEach(record -> producer.send(new ProducerRecord<>(sink, 0, null, record.value() + "!")));
        long next = records.get(records.size() - 1).offset() + 1;
        producer.sendOffsetsToTransaction(
            Map.of(place.partition(0), new OffsetAndMetadata(next)), member.groupMetadata());
    }

    /** As a member sees it: it waits while a transaction holds offsets of the partition (KIP-447). */
    private static long committed(Place place, Consumer<String, String> member) {
        return member.committed(Set.of(place.partition(0))).get(place.partition(0)).offset();
    }

    private static void fencing(Place place) throws Exception {
        place.createTopic(1);
        try (Producer<String, String> first = producer(place, "")) {
            first.beginTransaction();
            send(place, first, 0, "of the first");
            try (Producer<String, String> second = producer(place, "")) {
                second.beginTransaction();
                send(place, second, 0, "of the second");
                Place.expectError(ProducerFencedException.class, () -> {
                    first.commitTransaction();
                    return "a commit";
                });
                second.commitTransaction();
            }
        }
        Place.until("the second alone", () -> values(place, COMMITTED, 1).equals(List.of("of the second")));
        Place.expect("everything", List.of("of the first", "of the second"), values(place, UNCOMMITTED, 1));
    }

    private static void timeout(Place place) throws Exception {
        place.createTopic(1);
        Object[] brief = {"transaction.timeout.ms", "1000", "delivery.timeout.ms", "1000", "request.timeout.ms", "900"};
        try (Producer<String, String> producer = producer(place, "", brief); Admin admin = place.admin()) {
            producer.beginTransaction();
            send(place, producer, 0, "too slow");
            Place.expect("while it is open", 0L, end(place, admin, IsolationLevel.READ_COMMITTED));
            Place.until("the abort", () -> end(place, admin, IsolationLevel.READ_COMMITTED) == 2);
            Place.expectError(KafkaException.class, () -> {
                producer.commitTransaction();
                return "a commit";
            });
        }
        Place.expect("committed", List.of(), values(place, COMMITTED, 1));
    }

    private static void large(Place place) throws Exception {
        int partitions = 20;
        int count = 300;
        place.createTopic(partitions);
        try (Producer<String, String> producer = producer(place, "", "batch.size", "500")) {
            for (String name : List.of("aborted", "kept")) {
                producer.beginTransaction();
                for (int number = 0; number < count * partitions; number++) {
                    producer.send(new ProducerRecord<>(place.name(), number % partitions, null, name));
                }
                producer.flush();
                if (name.equals("kept")) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
        }
        Place.until("all of the second", () -> values(place, COMMITTED, partitions).size() == count * partitions);
        Place.expect("values", Set.of("kept"), Set.copyOf(values(place, COMMITTED, partitions)));
    }

    private static void interleaved(Place place) throws Exception {
        place.createTopic(1);
        List<Producer<String, String>> producers = new ArrayList<>();
        List<String> wanted = new ArrayList<>();
        for (int number = 0; number < 3; number++) {
            producers.add(producer(place, "-" + number));
        }
        for (int turn = 0; turn < 4; turn++) {
            for (int record = 0; record < 2; record++) {
                for (int number = 0; number < producers.size(); number++) {
                    if (record == 0) {
                        producers.get(number).beginTransaction();
                    }
                    String value = turn + "-" + number + "-" + record;
                    send(place, producers.get(number), 0, value);
                    if ((turn + number) % 2 == 0) {
                        wanted.add(value);
                    }
                }
            }
            for (int number = producers.size() - 1; number >= 0; number--) {
                if ((turn + number) % 2 == 0) {
                    producers.get(number).commitTransaction();
                } else {
                    producers.get(number).abortTransaction();
                }
            }
        }
        producers.forEach(Producer::close);
        Place.until("the committed ones", () -> values(place, COMMITTED, 1).equals(wanted));
    }

    private static TransactionDescription description(Place place, Admin admin) throws Exception {
        return Place.get(admin.describeTransactions(List.of(place.name())).description(place.name()));
    }

    /** Each end of a transaction gives its producer a new epoch (KIP-890), and so does each initialisation. */
    private static void epochs(Place place) throws Exception {
        place.createTopic(1);
        try (Producer<String, String> producer = producer(place, ""); Admin admin = place.admin()) {
            Place.expect("the first epoch", 0, description(place, admin).producerEpoch());
            for (int turn = 1; turn <= 3; turn++) {
                producer.beginTransaction();
                send(place, producer, 0, "value");
                producer.commitTransaction();
                int wanted = turn;
                Place.until("epoch " + turn, () -> description(place, admin).producerEpoch() == wanted);
            }
            long producerId = description(place, admin).producerId();
            producer(place, "").close();
            Place.expect("after another start", 4, description(place, admin).producerEpoch());
            Place.expect("its id", producerId, description(place, admin).producerId());
        }
    }

    private static void admin(Place place) throws Exception {
        place.createTopic(2);
        try (Producer<String, String> producer = producer(place, ""); Admin admin = place.admin()) {
            Place.expect("idle", TransactionState.EMPTY, description(place, admin).state());
            producer.beginTransaction();
            send(place, producer, 0, "a");
            send(place, producer, 1, "b");
            TransactionDescription open = description(place, admin);
            Place.expect("state", TransactionState.ONGOING, open.state());
            Place.expect("partitions", Set.of(place.partition(0), place.partition(1)), open.topicPartitions());
            Place.expect("timeout", 60_000L, open.transactionTimeoutMs());
            if (Math.abs(System.currentTimeMillis() - open.transactionStartTimeMs().getAsLong()) > 60_000) {
                throw new AssertionError("start time " + open.transactionStartTimeMs());
            }
            ListTransactionsOptions ongoing = new ListTransactionsOptions().filterStates(Set.of(TransactionState.ONGOING));
            Place.expect("listed", true, ids(admin, ongoing).contains(place.name()));
            ListTransactionsOptions byId = new ListTransactionsOptions().filterProducerIds(Set.of(open.producerId()));
            Place.expect("listed by producer id", Set.of(place.name()), ids(admin, byId));
            ListTransactionsOptions old = new ListTransactionsOptions().filterOnDuration(3_600_000);
            Place.expect("old ones", false, ids(admin, old).contains(place.name()));
            ProducerState state = producers(place, admin).iterator().next();
            Place.expect("producer id", open.producerId(), state.producerId());
            Place.expect("epoch", open.producerEpoch(), state.producerEpoch());
            Place.expect("last sequence", 0, state.lastSequence());
            Place.expect("start", 0L, state.currentTransactionStartOffset().getAsLong());
            producer.commitTransaction();
            Place.until("the end", () -> description(place, admin).state() == TransactionState.COMPLETE_COMMIT);
            ProducerState ended = producers(place, admin).iterator().next();
            Place.expect("start after the end", false, ended.currentTransactionStartOffset().isPresent());
            Place.expect("partitions of an ended one", Set.of(), description(place, admin).topicPartitions());
            Place.expectError(TransactionalIdNotFoundException.class, () -> Place.get(
                admin.describeTransactions(List.of(place.name() + "-never")).description(place.name() + "-never")));
        }
    }

    private static Set<String> ids(Admin admin, ListTransactionsOptions options) throws Exception {
        return Place.get(admin.listTransactions(options).all()).stream()
            .map(TransactionListing::transactionalId).collect(Collectors.toSet());
    }

    private static Collection<ProducerState> producers(Place place, Admin admin) throws Exception {
        return Place.get(admin.describeProducers(List.of(place.partition(0))).partitionResult(place.partition(0)))
            .activeProducers();
    }

    /** A marker from an administrator frees the partition, and its coordinator knows nothing of it (KIP-664). */
    private static void adminAbort(Place place) throws Exception {
        place.createTopic(1);
        Producer<String, String> producer = producer(place, "");
        try (Admin admin = place.admin()) {
            producer.beginTransaction();
            send(place, producer, 0, "hanging");
            ProducerState state = producers(place, admin).iterator().next();
            Place.get(admin.abortTransaction(new AbortTransactionSpec(
                place.partition(0), state.producerId(), (short) state.producerEpoch(),
                state.coordinatorEpoch().orElse(0))).all());
            Place.until("the marker", () -> end(place, admin, IsolationLevel.READ_COMMITTED) == 2);
            Place.expect("committed", List.of(), values(place, COMMITTED, 1));
        } finally {
            producer.close(Duration.ZERO);
        }
    }

    private static void adminFence(Place place) throws Exception {
        place.createTopic(1);
        try (Producer<String, String> producer = producer(place, ""); Admin admin = place.admin()) {
            producer.beginTransaction();
            send(place, producer, 0, "fenced");
            Place.get(admin.fenceProducers(List.of(place.name())).all());
            Place.expectError(ProducerFencedException.class, () -> {
                producer.commitTransaction();
                return "a commit";
            });
            Place.until("the abort", () -> end(place, admin, IsolationLevel.READ_COMMITTED) == 2);
        }
    }

    private static void features(Place place) throws Exception {
        try (Admin admin = place.admin()) {
            FeatureMetadata features = Place.get(admin.describeFeatures().featureMetadata());
            Place.expect("version of transactions", (short) 2,
                features.finalizedFeatures().get("transaction.version").maxVersionLevel());
            Place.expect("supported", (short) 2, features.supportedFeatures().get("transaction.version").maxVersion());
        }
    }
}
