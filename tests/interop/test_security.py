"""TLS and logins of every client against brokers that want them: ours and Apache Kafka."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError as AioKafkaError
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from streamcore.errors import AuthenticationError, BrokerUnreachableError
from streamcore.transport import connect
from streamcore.transport.kafka import KafkaTransport
from tests.interop.apache_kafka import MUTUAL
from tests.interop.cluster import PATIENCE_S, Cluster, fresh, until
from tests.interop.conftest import wanted_clusters
from tests.interop.kafka_jars import missing, run_kafka
from tests.interop.our_broker import streamcore_command
from tests.interop.raw_client import ClosedError, RawClient
from tests.interop.secured import PASSWORD, PROTOCOLS, SECURED, USER, Secured, Way

pytestmark = pytest.mark.interop

CONFIGS = "kafka.admin.ConfigCommand"
CONSOLE_PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
LIBRDKAFKA_WITH_THE_RIGHT_NONCE = (2, 6, 1)
REPOSITORY = Path(__file__).parents[2]
WAYS = [
    ("SSL", ""),
    (MUTUAL, ""),
    *((p, m) for p in PROTOCOLS[1:] for m in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")),
]
LOGINS = [("SASL_PLAINTEXT", "PLAIN"), ("SASL_SSL", "SCRAM-SHA-256"), ("SASL_PLAINTEXT", "SCRAM-SHA-512")]


@pytest.fixture(scope="module", params=wanted_clusters())
def secured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with SECURED[request.param](tmp_path_factory.mktemp(f"secured-{request.param}")) as running:
        yield running


@pytest.fixture(params=WAYS, ids=lambda way: "+".join(filter(None, way)))
def way(request: pytest.FixtureRequest, secured: Secured) -> Way:
    return Way(secured, *request.param)


@pytest.fixture(params=LOGINS, ids=lambda way: "+".join(way))
def wrong(request: pytest.FixtureRequest, secured: Secured) -> Way:
    """A way with a wrong password."""
    return Way(secured, *request.param, password="not-the-secret")


def make_topic(way: Way) -> str:
    admin = AdminClient({**way.librdkafka(), "log_level": 2})
    name = fresh("secured")
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(PATIENCE_S)
    until(
        lambda: all(
            p.leader >= 0 for p in admin.list_topics(name, timeout=PATIENCE_S).topics[name].partitions.values()
        ),
        what=f"topic {name}",
    )
    return name


def test_confluent_kafka_gets_in(way: Way) -> None:
    topic = make_topic(way)
    refused: list[Any] = []
    producer = Producer(way.librdkafka())
    values = [bytes([number]) * 100_000 for number in range(20)]
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: refused.append(error) if error else None)
    assert producer.flush(PATIENCE_S) == 0
    assert refused == []
    consumer = Consumer({**way.librdkafka(), "group.id": fresh("secured"), "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found: list[bytes] = []
    until(lambda: found.extend(m.value() for m in consumer.consume(20, 1.0)) or len(found) == 20, what="the records")
    consumer.close()
    assert found == values


def test_aiokafka_gets_in(way: Way) -> None:
    topic = make_topic(way)

    async def run() -> list[bytes | None]:
        async with asyncio.timeout(2 * PATIENCE_S), AIOKafkaProducer(**way.aiokafka()) as producer:
            for number in range(3):
                await producer.send_and_wait(topic, b"%d" % number)
            async with AIOKafkaConsumer(**way.aiokafka()) as consumer:
                consumer.assign([TopicPartition(topic, 0)])
                consumer.seek(TopicPartition(topic, 0), 0)
                return [(await consumer.getone()).value for _ in range(3)]

    assert asyncio.run(run()) == [b"0", b"1", b"2"]


def kcat(way: Way, *arguments: str, standard_input: str = "") -> "subprocess.CompletedProcess[str]":
    program = shutil.which("kcat") or shutil.which("kafkacat")
    if program is None:
        missing("kcat is not on this machine (Debian: apt install kcat)")
    settings = {name: value for name, value in way.librdkafka().items() if name != "bootstrap.servers"}
    options = [part for name, value in settings.items() for part in ("-X", f"{name}={value}")]
    return subprocess.run(
        [program, "-b", way.bootstrap, *options, *arguments],
        input=standard_input,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def kcat_sends_a_wrong_nonce() -> bool:
    """Older librdkafkas do, which Kafka refuses since CVE-2024-56128."""
    program = shutil.which("kcat") or shutil.which("kafkacat")
    told = subprocess.run([str(program), "-V"], capture_output=True, text=True, timeout=PATIENCE_S, check=False).stdout
    version = re.search(r"librdkafka (\d+)\.(\d+)\.(\d+)", told)
    return version is not None and tuple(map(int, version.groups())) < LIBRDKAFKA_WITH_THE_RIGHT_NONCE


def test_kcat_gets_in(way: Way) -> None:
    topic = make_topic(way)
    if way.mechanism.startswith("SCRAM") and kcat_sends_a_wrong_nonce():
        refused = kcat(way, "-P", "-t", topic, standard_input="a\nb\n")
        assert "SASL authentication error" in refused.stderr
        return
    produced = kcat(way, "-P", "-t", topic, standard_input="a\nb\n")
    assert produced.returncode == 0, produced.stderr
    consumed = kcat(way, "-C", "-t", topic, "-o", "beginning", "-e", "-q")
    assert consumed.stdout == "a\nb\n", consumed.stderr


def test_kafkas_own_tools_get_in(way: Way, tmp_path: Path) -> None:
    topic = make_topic(way)
    place = ["--bootstrap-server", way.bootstrap, "--topic", topic]
    config = str(way.java(tmp_path / "client.properties"))
    run_kafka(CONSOLE_PRODUCER, *place, "--producer.config", config, standard_input="a\nb\n")
    bounds = ["--from-beginning", "--max-messages", "2", "--timeout-ms", "20000"]
    output = run_kafka(CONSOLE_CONSUMER, *place, "--consumer.config", config, *bounds)
    assert output.splitlines()[:2] == ["a", "b"]


def streamcore(
    way: Way, *arguments: str, environment: dict[str, str] | None = None, standard_input: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*streamcore_command(), *arguments, "--broker", f"kafka://{way.bootstrap}"],
        input=standard_input,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})},
    )


def test_our_own_commands_get_in_by_a_file_and_by_the_environment(way: Way, tmp_path: Path) -> None:
    topic = make_topic(way)
    config = ["--command-config", str(way.java(tmp_path / "client.properties"))]
    written = streamcore(way, "produce", topic, *config, standard_input="a\nb\n")
    assert written.returncode == 0, written.stderr
    settings = {name: value for name, value in way.librdkafka().items() if name != "bootstrap.servers"}
    environment = {f"STREAMCORE_CLIENT_{name.upper().replace('.', '_')}": value for name, value in settings.items()}
    read = streamcore(way, "consume", topic, "--json", environment=environment)
    assert read.stdout.count("\n") == 2, read.stderr


def test_a_wrong_password_is_told_to_every_client(wrong: Way, tmp_path: Path) -> None:
    errors: list[Any] = []
    producer = Producer({**wrong.librdkafka(), "error_cb": errors.append, "log_level": 0})
    until(lambda: (producer.poll(0.1), errors)[1], what="an error")
    assert errors[0].code() == KafkaError._AUTHENTICATION

    async def by_aiokafka() -> None:
        producer = AIOKafkaProducer(**wrong.aiokafka())
        try:
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(AioKafkaError):
                    await producer.start()
        finally:
            await producer.stop()

    asyncio.run(by_aiokafka())
    listed = kcat(wrong, "-L", "-m", "3")
    assert listed.returncode != 0
    assert "SASL authentication error" in listed.stderr, listed.stderr
    config = str(wrong.java(tmp_path / "client.properties"))
    place = ["--bootstrap-server", wrong.bootstrap, "--command-config", config]
    output = run_kafka("org.apache.kafka.tools.TopicCommand", *place, "--list", exit_code=1)
    assert "SaslAuthenticationException" in output
    told = streamcore(wrong, "topics", "list", "--command-config", config)
    assert told.returncode == 1
    assert f"refuses the login of '{USER}' by {wrong.mechanism}" in told.stderr
    assert "not-the-secret" not in told.stderr


def test_who_shows_no_certificate_where_one_is_wanted_does_not_get_in(secured: Secured, tmp_path: Path) -> None:
    way = Way(secured, MUTUAL, "", has_certificate=False)
    admin = AdminClient({**way.librdkafka(), "log_level": 0})
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=2)
    config = str(way.java(tmp_path / "client.properties"))
    # Whether it is told why is left out: asyncio and uvloop hang up without the alert that OpenSSL has for the client.
    told = streamcore(way, "topics", "list", "--command-config", config)
    assert told.returncode == 1
    assert "certificate" in told.stderr


def test_our_client_is_told_what_does_not_fit(secured: Secured) -> None:
    async def use(bootstrap: str, client: dict[str, str]) -> None:
        transport = connect(f"kafka://{bootstrap}", client=client)
        try:
            await transport.start()
        finally:
            await transport.stop()

    places = secured.cluster.secured
    tls = {"security.protocol": "SSL", "ssl.ca.location": str(secured.certificates.ca)}
    with pytest.raises((BrokerUnreachableError, AuthenticationError), match=r"security\.protocol"):
        asyncio.run(use(places["SSL"], {}))
    with pytest.raises((BrokerUnreachableError, AuthenticationError), match=r"security\.protocol"):
        asyncio.run(use(places["SASL_PLAINTEXT"], tls))
    with pytest.raises(BrokerUnreachableError, match=r"hung up at once\. Is security\.protocol=PLAINTEXT"):
        asyncio.run(use(places["SASL_PLAINTEXT"], {}))
    with pytest.raises(AuthenticationError, match="is not trusted"):
        asyncio.run(use(places["SSL"], {**tls, "ssl.ca.location": str(secured.certificates.other_ca)}))


def test_who_sends_no_password_sees_nothing(secured: Secured) -> None:
    admin = AdminClient({"bootstrap.servers": secured.cluster.secured["SASL_PLAINTEXT"], "log_level": 0})
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=2)


def raw(secured: Secured) -> RawClient:
    return RawClient(Cluster(secured.cluster.name, secured.cluster.secured["SASL_PLAINTEXT"]))


def test_the_login_answers_as_apache_kafka_does(secured: Secured) -> None:
    with raw(secured) as client:
        offered = {entry.api_key for entry in client.ask("api_versions", 0, {}).api_keys}
        assert {17, 36, 50, 51} <= offered
        with pytest.raises(ClosedError):
            client.ask("metadata", 1, {"topics": []})
    with raw(secured) as client:
        answer = client.ask("sasl_handshake", 1, {"mechanism": "GSSAPI"})
        assert answer.error_code.name == "unsupported_sasl_mechanism"
        assert set(answer.mechanisms) == {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}
        with pytest.raises(ClosedError):
            client.ask("sasl_handshake", 1, {"mechanism": "PLAIN"})
    right = b"\0%s\0%s" % (USER.encode(), PASSWORD.encode())
    for version in (0, 1, 2):
        for token, code in ((right, "none"), (b"\0admin\0wrong", "sasl_authentication_failed")):
            with raw(secured) as client:
                assert client.ask("sasl_handshake", 1, {"mechanism": "PLAIN"}).error_code.name == "none"
                answer = client.ask("sasl_authenticate", version, {"auth_bytes": token})
                assert answer.error_code.name == code
                assert bool(getattr(answer, "session_lifetime", 0)) == (version > 0 and code == "none")
                if code == "none":
                    assert client.ask("metadata", 1, {"topics": []}).brokers
                else:
                    with pytest.raises(ClosedError):
                        client.ask("metadata", 1, {"topics": []})


def test_a_listener_without_sasl_takes_no_login(cluster: Cluster) -> None:
    with RawClient(cluster) as client:
        assert client.ask("sasl_handshake", 1, {"mechanism": "PLAIN"}).error_code.name == "illegal_sasl_state"
        answer = client.ask("sasl_authenticate", 1, {"auth_bytes": b"\0a\0b"})
        assert answer.error_code.name == "illegal_sasl_state"
        assert client.ask("metadata", 1, {"topics": []}).brokers


def test_kafka_configs_adds_a_user_who_may_log_in_at_once_and_one_who_has_gone_may_not(
    secured: Secured, tmp_path: Path
) -> None:
    admin, user = Way(secured, "SASL_SSL", "SCRAM-SHA-512"), fresh("user")
    place = ["--bootstrap-server", admin.bootstrap, "--command-config", str(admin.java(tmp_path / "admin.properties"))]
    entity = ["--entity-type", "users", "--entity-name", user]
    # One after the other: Apache Kafka takes a user only once in a request.
    for added in ("SCRAM-SHA-256=[iterations=8192,password=one]", "SCRAM-SHA-512=[password=two]"):
        run_kafka(CONFIGS, *place, "--alter", *entity, "--add-config", added)
    ways = [
        Way(secured, "SASL_SSL", "SCRAM-SHA-256", user, "one"),
        Way(secured, "SASL_SSL", "SCRAM-SHA-512", user, "two"),
    ]

    def gets_in(way: Way) -> bool:
        transport = connect(
            f"kafka://{way.bootstrap}",
            client={name: value for name, value in way.librdkafka().items() if name != "bootstrap.servers"},
        )

        async def start() -> bool:
            try:
                await transport.start()
            except AuthenticationError:
                return False
            finally:
                await transport.stop()
            return True

        return asyncio.run(start())

    # Apache Kafka's nodes learn of it from their controller, a moment later.
    until(lambda: all(map(gets_in, ways)), what=f"{user} logs in")
    assert not gets_in(ways[0]._replace(password="two"))
    described = run_kafka(CONFIGS, *place, "--describe", *entity)
    assert "SCRAM-SHA-256=iterations=8192" in described
    assert "SCRAM-SHA-512=iterations=4096" in described
    run_kafka(CONFIGS, *place, "--alter", *entity, "--delete-config", "SCRAM-SHA-256")
    until(lambda: not gets_in(ways[0]), what=f"{user} does not log in any more")
    assert gets_in(ways[1])
    refused = ["--add-config", "SCRAM-SHA-256=[iterations=100,password=x]"]
    output = run_kafka(CONFIGS, *place, "--alter", *entity, *refused, exit_code=1)
    assert "terations" in output


def test_our_client_logs_in_again_on_its_connection(secured: Secured) -> None:
    way = Way(secured, "SASL_PLAINTEXT", "SCRAM-SHA-256")
    client = {name: value for name, value in way.librdkafka().items() if name != "bootstrap.servers"}

    async def run() -> None:
        transport = connect(f"kafka://{way.bootstrap}", client=client)
        assert isinstance(transport, KafkaTransport)
        await transport.start()
        connection = await transport._cluster.anyone()
        logins = {connection._login_due_s}
        async with asyncio.timeout(PATIENCE_S):
            while len(logins) < 3:
                await transport.groups()
                logins.add(connection._login_due_s)
                await asyncio.sleep(0.05)
        assert connection.is_open
        await transport.stop()

    asyncio.run(run())


def test_other_clients_outlive_their_sessions(secured: Secured, tmp_path: Path) -> None:
    way = Way(secured, "SASL_PLAINTEXT", "SCRAM-SHA-512")
    topic = make_topic(way)
    # 60 records at 10 a second take two sessions.
    output = run_kafka(
        "org.apache.kafka.tools.VerifiableProducer",
        *["--bootstrap-server", way.bootstrap, "--topic", topic, "--max-messages", "60", "--throughput", "10"],
        *["--producer.config", str(way.java(tmp_path / "client.properties"))],
    )
    assert output.count("producer_send_success") == 60, output[-2000:]
