import java.io.PrintStream;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.WakeupException;

/** A group member that prints each value, then commits; SIGTERM makes it leave. */
final class Member {
    static void run(
        String bootstrap, String topic, String group, String assignor, String sessionTimeout, String heartbeatInterval
    ) throws Exception {
        Consumer<String, String> consumer = new Place(bootstrap, topic).member(
            "group.id", group, "partition.assignment.strategy", assignor, "session.timeout.ms", sessionTimeout,
            "heartbeat.interval.ms", heartbeatInterval);
        CountDownLatch left = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                left.await();
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
        }));
        PrintStream output = new PrintStream(System.out, false);
        try (consumer) {
            consumer.subscribe(List.of(topic));
            while (true) {
                ConsumerRecords<String, String> records = consumer.poll(Place.POLL);
                for (ConsumerRecord<String, String> record : records) {
                    output.println(record.value());
                }
                output.flush();
                try {
                    consumer.commitSync();
                } catch (CommitFailedException | RebalanceInProgressException taken) {
                    // Somebody else reads these records again.
                    continue;
                }
            }
        } catch (WakeupException leaving) {
            // SIGTERM: the consumer is closed, and so leaves.
        } finally {
            left.countDown();
        }
    }
}
