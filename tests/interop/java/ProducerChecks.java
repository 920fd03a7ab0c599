import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;

/** What a producer sends is what a consumer reads. */
final class ProducerChecks {
    /** Within the week that a topic keeps its records by default. */
    static final long START_MS = System.currentTimeMillis() - 3_600_000;

    static void register(Map<String, Check> checks) {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            checks.put("compression-" + codec, place -> roundTrip(place, 500, "compression.type", codec, "linger.ms", "20"));
        }
        for (String acks : List.of("0", "1", "all")) {
            checks.put("acks-" + acks, place -> roundTrip(place, 300, "acks", acks, "enable.idempotence", "false"));
        }
        // Small batches, and so many of them in flight.
        checks.put("idempotent", place -> roundTrip(place, 1000, "batch.size", "2000", "enable.idempotence", "true"));
        checks.put("large-batches", place -> roundTrip(place, 20_000, "batch.size", "900000", "linger.ms", "100"));
        checks.put("fields", ProducerChecks::fields);
        checks.put("log-append-time", ProducerChecks::logAppendTime);
        checks.put("oversized", ProducerChecks::oversized);
        checks.put("invalid-topic", ProducerChecks::invalidTopic);
        checks.put("keys", ProducerChecks::keys);
    }

    private static void roundTrip(Place place, int count, Object... settings) throws Exception {
        place.createTopic(1);
        List<String> values = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            values.add(number + ":" + "text ".repeat(100));
        }
        boolean acknowledged = !Arrays.asList(settings).contains("0");
        try (Producer<String, String> producer = place.producer(settings)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (String value : values) {
                sent.add(producer.send(new ProducerRecord<>(place.name(), value)));
            }
            producer.flush();
            for (int number = 0; number < count; number++) {
                long offset = Place.get(sent.get(number)).offset();
                Place.expect("acknowledged offset", acknowledged ? number : -1L, offset);
            }
        }
        try (Consumer<String, String> consumer = place.consumer()) {
            consumer.assign(List.of(place.partition(0)));
            List<ConsumerRecord<String, String>> came = Place.take(consumer, count);
            for (int number = 0; number < count; number++) {
                Place.expect("value", values.get(number), came.get(number).value());
                Place.expect("offset", (long) number, came.get(number).offset());
            }
        }
    }

    private static void fields(Place place) throws Exception {
        place.createTopic(1);
        List<Header> headers = List.of(
            new RecordHeader("twice", bytes("1")), new RecordHeader("twice", bytes("2")),
            new RecordHeader("null", (byte[]) null), new RecordHeader("", new byte[0]));
        List<ProducerRecord<byte[], byte[]>> sent = List.of(
            new ProducerRecord<>(place.name(), 0, START_MS, bytes("key"), bytes("value ✓"), headers),
            new ProducerRecord<>(place.name(), 0, START_MS + 1, null, bytes("no key")),
            new ProducerRecord<>(place.name(), 0, START_MS + 2, bytes("no value"), (byte[]) null),
            new ProducerRecord<>(place.name(), 0, START_MS - 3, new byte[0], new byte[0]),
            new ProducerRecord<>(place.name(), 0, START_MS + 4, (byte[]) null, (byte[]) null));
        try (Producer<byte[], byte[]> producer = place.bytesProducer("linger.ms", "50")) {
            for (ProducerRecord<byte[], byte[]> record : sent) {
                producer.send(record, (metadata, error) -> { });
            }
        }
        try (Consumer<byte[], byte[]> consumer = place.bytesConsumer()) {
            consumer.assign(List.of(place.partition(0)));
            List<ConsumerRecord<byte[], byte[]>> came = Place.take(consumer, sent.size());
            for (int index = 0; index < sent.size(); index++) {
                ProducerRecord<byte[], byte[]> wanted = sent.get(index);
                ConsumerRecord<byte[], byte[]> got = came.get(index);
                Place.expect("key " + index, Arrays.toString(wanted.key()), Arrays.toString(got.key()));
                Place.expect("value " + index, Arrays.toString(wanted.value()), Arrays.toString(got.value()));
                Place.expect("time " + index, wanted.timestamp(), got.timestamp());
                Place.expect("kind of time " + index, TimestampType.CREATE_TIME, got.timestampType());
                Place.expect("headers " + index, wanted.headers(), got.headers());
            }
        }
    }

    private static void logAppendTime(Place place) throws Exception {
        place.createTopic(place.name(), 1, Map.of("message.timestamp.type", "LogAppendTime"));
        long before = System.currentTimeMillis();
        long acknowledged;
        try (Producer<String, String> producer = place.producer()) {
            acknowledged = Place.get(producer.send(new ProducerRecord<>(place.name(), 0, START_MS, "k", "v"))).timestamp();
        }
        try (Consumer<String, String> consumer = place.consumer()) {
            consumer.assign(List.of(place.partition(0)));
            ConsumerRecord<String, String> came = Place.take(consumer, 1).get(0);
            Place.expect("kind of time", TimestampType.LOG_APPEND_TIME, came.timestampType());
            Place.expect("time as acknowledged", acknowledged, came.timestamp());
            Place.expect("the broker's time", true, came.timestamp() >= before);
        }
    }

    private static void oversized(Place place) throws Exception {
        place.createTopic(1);
        try (Admin admin = place.admin(); Producer<String, String> producer = place.producer()) {
            ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, place.name());
            ConfigEntry limit = new ConfigEntry("max.message.bytes", "100000");
            Place.get(admin.incrementalAlterConfigs(
                Map.of(topic, List.of(new AlterConfigOp(limit, AlterConfigOp.OpType.SET)))).all());
            // The setting may take a moment to be there.
            Place.until("the refusal", () -> {
                try {
                    Place.get(producer.send(new ProducerRecord<>(place.name(), "x".repeat(200_000))));
                    return false;
                } catch (RecordTooLargeException refused) {
                    return true;
                }
            });
            Place.get(producer.send(new ProducerRecord<>(place.name(), "small enough")));
        }
    }

    private static void invalidTopic(Place place) {
        try (Producer<String, String> producer = place.producer()) {
            Place.expectError(InvalidTopicException.class,
                () -> Place.get(producer.send(new ProducerRecord<>("a/b", "v"))));
        }
    }

    /** Prints where each key went, in hexadecimal; the caller knows where other clients would put it. */
    private static void keys(Place place) throws Exception {
        int partitions = 7;
        place.createTopic(partitions);
        List<byte[]> keys = new ArrayList<>();
        for (int number = 0; number < 50; number++) {
            keys.add(bytes("key-" + number));
        }
        // Every length of the hash's tail, with bytes that are negative in Java.
        for (int length = 0; length < 12; length++) {
            byte[] key = new byte[length];
            Arrays.fill(key, (byte) (0xff - length));
            keys.add(key);
        }
        keys.add(bytes("Schlüssel ✓"));
        try (Producer<byte[], byte[]> producer = place.bytesProducer()) {
            for (byte[] key : keys) {
                RecordMetadata sent = Place.get(producer.send(new ProducerRecord<>(place.name(), key, bytes("v"))));
                System.out.println("0x" + java.util.HexFormat.of().formatHex(key) + " " + sent.partition());
            }
        }
    }

    /** Values 0, 1, 2... one by one into small batches; fails if any is refused. */
    static void produceNumbers(String bootstrap, String topic, int count) throws Exception {
        Place place = new Place(bootstrap, topic);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (Producer<String, String> producer = place.producer(
            "batch.size", "500", "request.timeout.ms", "2000", "retry.backoff.ms", "20", "reconnect.backoff.ms", "20",
            "reconnect.backoff.max.ms", "100", "enable.idempotence", "true")) {
            for (int number = 0; number < count; number++) {
                sent.add(producer.send(new ProducerRecord<>(topic, 0, null, Integer.toString(number))));
            }
            producer.flush();
            for (Future<RecordMetadata> record : sent) {
                Place.get(record);
            }
        }
    }

    private static byte[] bytes(String text) {
        return text.getBytes(UTF_8);
    }
}
