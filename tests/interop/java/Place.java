import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Where a check happens: a broker, and a name that no other check has. And what checks share. */
record Place(String bootstrap, String name) {
    static final Duration PATIENCE = Duration.ofSeconds(30);
    static final Duration POLL = Duration.ofMillis(100);

    TopicPartition partition(int number) {
        return new TopicPartition(name, number);
    }

    Producer<String, String> producer(Object... settings) {
        return new KafkaProducer<>(with(settings), new StringSerializer(), new StringSerializer());
    }

    Producer<byte[], byte[]> bytesProducer(Object... settings) {
        return new KafkaProducer<>(with(settings), new ByteArraySerializer(), new ByteArraySerializer());
    }

    Consumer<String, String> consumer(Object... settings) {
        return new KafkaConsumer<>(consumerSettings(settings), new StringDeserializer(), new StringDeserializer());
    }

    Consumer<byte[], byte[]> bytesConsumer(Object... settings) {
        return new KafkaConsumer<>(consumerSettings(settings), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** A member of the group called as the topic, committing only when it is told to. */
    Consumer<String, String> member(Object... settings) {
        Map<String, Object> all = consumerSettings(settings);
        all.putIfAbsent("group.id", name);
        all.putIfAbsent("session.timeout.ms", "6000");
        all.putIfAbsent("heartbeat.interval.ms", "300");
        return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    Admin admin() {
        return Admin.create(with());
    }

    private Map<String, Object> consumerSettings(Object... settings) {
        Map<String, Object> all = with(settings);
        all.putIfAbsent("enable.auto.commit", "false");
        all.putIfAbsent("auto.offset.reset", "earliest");
        return all;
    }

    private Map<String, Object> with(Object... settings) {
        Map<String, Object> all = new HashMap<>();
        all.put("bootstrap.servers", bootstrap);
        for (int index = 0; index < settings.length; index += 2) {
            all.put((String) settings[index], settings[index + 1]);
        }
        return all;
    }

    /** Make the topic and wait until every partition has a leader. */
    void createTopic(int partitions) throws Exception {
        createTopic(name, partitions, Map.of());
    }

    void createTopic(String topic, int partitions, Map<String, String> configs) throws Exception {
        try (Admin admin = admin()) {
            get(admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all());
            awaitPartitions(admin, topic, partitions);
        }
    }

    static void awaitPartitions(Admin admin, String topic, int partitions) throws Exception {
        until("topic " + topic, () -> {
            try {
                List<TopicPartitionInfo> found = get(admin.describeTopics(List.of(topic)).allTopicNames())
                    .get(topic).partitions();
                return found.size() == partitions
                    && found.stream().allMatch(partition -> partition.leader() != null && !partition.leader().isEmpty());
            } catch (org.apache.kafka.common.errors.UnknownTopicOrPartitionException notYet) {
                return false;
            }
        });
    }

    /** Values 0, 1, 2... to the first partition, a second apart, acknowledged. */
    void produceNumbers(int count, long startMs, Object... settings) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (Producer<String, String> producer = producer(settings)) {
            for (int number = 0; number < count; number++) {
                sent.add(producer.send(
                    new ProducerRecord<>(name, 0, startMs + number * 1000L, null, Integer.toString(number))));
            }
            producer.flush();
            for (int number = 0; number < count; number++) {
                expect("offset of " + number, (long) number, get(sent.get(number)).offset());
            }
        }
    }

    static <K, V> List<ConsumerRecord<K, V>> take(Consumer<K, V> consumer, int count) {
        List<ConsumerRecord<K, V>> taken = new ArrayList<>();
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (taken.size() < count) {
            consumer.poll(POLL).forEach(taken::add);
            if (System.nanoTime() > deadline) {
                throw new AssertionError("only " + taken.size() + " of " + count + " records came");
            }
        }
        expect("number of records", count, taken.size());
        return taken;
    }

    static <T> T get(Future<T> future) throws Exception {
        try {
            return future.get(PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
        } catch (ExecutionException error) {
            throw error.getCause() instanceof Exception cause ? cause : error;
        }
    }

    /** Look again until it is so; a broker does not say when what it was told has taken effect. */
    static void until(String what, Callable<Boolean> look) throws Exception {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (!look.call()) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError(what + ": not within " + PATIENCE.toSeconds() + " s");
            }
            Thread.sleep(20);
        }
    }

    static void expect(String what, Object wanted, Object got) {
        if (!Objects.equals(wanted, got)) {
            throw new AssertionError(what + ": wanted " + wanted + ", got " + got);
        }
    }

    static void expectError(Class<? extends Exception> wanted, Callable<?> action) {
        try {
            Object got = action.call();
            throw new AssertionError("wanted " + wanted.getSimpleName() + ", got " + got);
        } catch (Exception error) {
            if (!wanted.isInstance(error)) {
                throw new AssertionError("wanted " + wanted.getSimpleName() + ", got " + error, error);
            }
        }
    }
}
