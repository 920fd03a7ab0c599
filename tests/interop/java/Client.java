import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.TreeMap;

/**
 * A client of the brokers under test, with Apache Kafka's Java client.
 *
 * <pre>
 * java Client subjects
 * java Client checks BOOTSTRAP                 reads "SUBJECT NAME" lines, one check each; a JVM costs a second to start
 * java Client member BOOTSTRAP TOPIC GROUP ASSIGNOR SESSION_TIMEOUT_MS HEARTBEAT_INTERVAL_MS
 * java Client produce BOOTSTRAP TOPIC COUNT    idempotent, values 0, 1, 2...; ends when all are acknowledged
 * </pre>
 *
 * A check's answer ends with a line "ok", or "failed" after the lines that say what was wrong. NAME begins the names of
 * the topics and groups that a check makes.
 */
public final class Client {
    static Map<String, Check> checks() {
        Map<String, Check> checks = new TreeMap<>();
        ProducerChecks.register(checks);
        ConsumerChecks.register(checks);
        GroupChecks.register(checks);
        AdminChecks.register(checks);
        TransactionChecks.register(checks);
        return checks;
    }

    public static void main(String[] arguments) throws Exception {
        String verb = arguments.length == 0 ? "" : arguments[0];
        switch (verb + " " + arguments.length) {
            case "subjects 1" -> checks().keySet().forEach(System.out::println);
            case "checks 2" -> serve(arguments[1]);
            case "member 7" -> Member.run(
                arguments[1], arguments[2], arguments[3], arguments[4], arguments[5], arguments[6]);
            case "produce 4" -> ProducerChecks.produceNumbers(arguments[1], arguments[2], Integer.parseInt(arguments[3]));
            default -> {
                System.err.println("usage: subjects | checks BOOTSTRAP | member BOOTSTRAP TOPIC GROUP ASSIGNOR "
                    + "SESSION_TIMEOUT_MS HEARTBEAT_INTERVAL_MS | produce BOOTSTRAP TOPIC COUNT");
                System.exit(2);
            }
        }
    }

    private static void serve(String bootstrap) throws Exception {
        Map<String, Check> checks = checks();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            try {
                checks.get(words[0]).run(new Place(bootstrap, words[1]));
                System.out.println("ok");
            } catch (Throwable error) {
                error.printStackTrace(System.out);
                System.out.println("failed");
            }
            System.out.flush();
        }
    }
}
