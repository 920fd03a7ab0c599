import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/** Places in the log: seeking, committing, going on where somebody stopped. */
final class ConsumerChecks {
    static void register(Map<String, Check> checks) {
        checks.put("resume", ConsumerChecks::resume);
        checks.put("auto-commit", ConsumerChecks::autoCommit);
        checks.put("offset-metadata", ConsumerChecks::offsetMetadata);
        checks.put("seek-by-time", ConsumerChecks::seekByTime);
        checks.put("seek", ConsumerChecks::seek);
        checks.put("past-the-end", ConsumerChecks::pastTheEnd);
        checks.put("pause", ConsumerChecks::pause);
        checks.put("small-fetches", ConsumerChecks::smallFetches);
        checks.put("pattern", ConsumerChecks::pattern);
    }

    private static void resume(Place place) throws Exception {
        place.createTopic(1);
        place.produceNumbers(20, ProducerChecks.START_MS);
        List<String> values = new ArrayList<>();
        for (int part = 0; part < 2; part++) {
            try (Consumer<String, String> consumer = place.member("max.poll.records", "5")) {
                consumer.subscribe(List.of(place.name()));
                for (ConsumerRecord<String, String> record : Place.take(consumer, 10)) {
                    values.add(record.value());
                }
                consumer.commitSync();
            }
        }
        for (int number = 0; number < 20; number++) {
            Place.expect("value", Integer.toString(number), values.get(number));
        }
    }

    private static void autoCommit(Place place) throws Exception {
        place.createTopic(1);
        place.produceNumbers(10, ProducerChecks.START_MS);
        try (Consumer<String, String> consumer = place.member("enable.auto.commit", "true", "max.poll.records", "4")) {
            consumer.subscribe(List.of(place.name()));
            // The end of the first four is committed when the consumer closes.
            Place.take(consumer, 4);
        }
        try (Consumer<String, String> consumer = place.member()) {
            Place.expect("committed", 4L, consumer.committed(Set.of(place.partition(0))).get(place.partition(0)).offset());
        }
    }

    private static void offsetMetadata(Place place) throws Exception {
        place.createTopic(2);
        TopicPartition first = place.partition(0);
        TopicPartition second = place.partition(1);
        try (Consumer<String, String> consumer = place.member()) {
            consumer.assign(List.of(first, second));
            consumer.commitSync(Map.of(first, new OffsetAndMetadata(5, "node-1 ✓")));
            Map<TopicPartition, OffsetAndMetadata> found = consumer.committed(Set.of(first, second));
            Place.expect("committed", new OffsetAndMetadata(5, "node-1 ✓"), found.get(first));
            Place.expect("not committed", null, found.get(second));
        }
    }

    private static void seekByTime(Place place) throws Exception {
        place.createTopic(2);
        place.produceNumbers(100, ProducerChecks.START_MS, "batch.size", "2000");
        TopicPartition first = place.partition(0);
        long at = ProducerChecks.START_MS + 50_001;
        try (Consumer<String, String> consumer = place.consumer()) {
            consumer.assign(List.of(first));
            Map<TopicPartition, OffsetAndTimestamp> found =
                consumer.offsetsForTimes(Map.of(first, at, place.partition(1), at));
            Place.expect("offset", 51L, found.get(first).offset());
            Place.expect("time", ProducerChecks.START_MS + 51_000, found.get(first).timestamp());
            Place.expect("in an empty partition", null, found.get(place.partition(1)));
            consumer.seek(first, found.get(first).offset());
            Place.expect("value", "51", Place.take(consumer, 49).get(0).value());
            long late = ProducerChecks.START_MS + 10_000_000;
            Place.expect("after the last", null, consumer.offsetsForTimes(Map.of(first, late)).get(first));
        }
    }

    private static void seek(Place place) throws Exception {
        place.createTopic(1);
        place.produceNumbers(30, ProducerChecks.START_MS);
        TopicPartition first = place.partition(0);
        try (Consumer<String, String> consumer = place.consumer("max.poll.records", "10")) {
            consumer.assign(List.of(first));
            Place.expect("beginning", Map.of(first, 0L), consumer.beginningOffsets(Set.of(first)));
            Place.expect("end", Map.of(first, 30L), consumer.endOffsets(Set.of(first)));
            consumer.seek(first, 17);
            Place.expect("value at 17", "17", Place.take(consumer, 10).get(0).value());
            Place.expect("position", 27L, consumer.position(first));
            consumer.seekToBeginning(Set.of(first));
            Place.expect("first value", "0", Place.take(consumer, 10).get(0).value());
            consumer.seekToEnd(Set.of(first));
            Place.expect("position at the end", 30L, consumer.position(first));
            Place.expect("records at the end", 0, consumer.poll(Place.POLL).count());
            Place.expect("lag at the end", 0L, consumer.currentLag(first).orElse(-1));
        }
    }

    private static void pastTheEnd(Place place) throws Exception {
        place.createTopic(1);
        place.produceNumbers(3, ProducerChecks.START_MS);
        try (Consumer<String, String> consumer = place.consumer("auto.offset.reset", "none")) {
            consumer.assign(List.of(place.partition(0)));
            consumer.seek(place.partition(0), 1000);
            Place.expectError(OffsetOutOfRangeException.class, () -> Place.take(consumer, 1));
        }
        try (Consumer<String, String> consumer = place.consumer("auto.offset.reset", "earliest")) {
            consumer.assign(List.of(place.partition(0)));
            consumer.seek(place.partition(0), 1000);
            Place.expect("value after the reset", "0", Place.take(consumer, 3).get(0).value());
        }
    }

    private static void pause(Place place) throws Exception {
        place.createTopic(2);
        try (Producer<String, String> producer = place.producer();
            Consumer<String, String> consumer = place.consumer()) {
            for (int number = 0; number < 20; number++) {
                producer.send(new ProducerRecord<>(place.name(), number % 2, null, Integer.toString(number)));
            }
            producer.flush();
            consumer.assign(List.of(place.partition(0), place.partition(1)));
            consumer.pause(List.of(place.partition(0)));
            for (ConsumerRecord<String, String> record : Place.take(consumer, 10)) {
                Place.expect("partition", 1, record.partition());
            }
            consumer.resume(List.of(place.partition(0)));
            for (ConsumerRecord<String, String> record : Place.take(consumer, 10)) {
                Place.expect("partition", 0, record.partition());
            }
        }
    }

    /** Batches larger than a fetch may be come whole, one by one. */
    private static void smallFetches(Place place) throws Exception {
        place.createTopic(1);
        String value = "x".repeat(10_000);
        try (Producer<String, String> producer = place.producer()) {
            for (int number = 0; number < 50; number++) {
                producer.send(new ProducerRecord<>(place.name(), Integer.toString(number), value));
            }
        }
        try (Consumer<String, String> consumer = place.consumer("fetch.max.bytes", "100", "max.partition.fetch.bytes", "1")) {
            consumer.assign(List.of(place.partition(0)));
            List<ConsumerRecord<String, String>> came = Place.take(consumer, 50);
            for (int number = 0; number < 50; number++) {
                Place.expect("key", Integer.toString(number), came.get(number).key());
            }
        }
    }

    private static void pattern(Place place) throws Exception {
        for (String end : List.of("-a", "-b")) {
            place.createTopic(place.name() + end, 1, Map.of());
            try (Producer<String, String> producer = place.producer()) {
                Place.get(producer.send(new ProducerRecord<>(place.name() + end, end)));
            }
        }
        try (Consumer<String, String> consumer = place.member()) {
            consumer.subscribe(java.util.regex.Pattern.compile(place.name() + "-[ab]"));
            String[] values = Place.take(consumer, 2).stream().map(ConsumerRecord::value).sorted().toArray(String[]::new);
            Place.expect("values", "[-a, -b]", Arrays.toString(values));
        }
    }
}
