"""TLS and logins between our client and our broker, and what is said when they do not fit; on both event loops."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from streamcore import App
from streamcore.broker import authentication
from streamcore.broker.server import Server
from streamcore.errors import AuthenticationError, BrokerUnreachableError, UsageError
from streamcore.transport import connect
from streamcore.transport.base import EARLIEST
from streamcore.types import TP
from tests.broker.wire import serving
from tests.certificates import Certificates, make_certificates

T0 = TP("t", 0)
USERS = {"sasl.users.alice": "secret", "sasl.users.first.last": 'pass "word" \\ ü'}
MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
Settings = dict[str, str]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def run(
    path: Path,
    broker: dict[str, Any],
    test: Callable[[Server], Awaitable[None]],
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> None:
    async def main() -> None:
        async with serving(path, **broker) as server, asyncio.timeout(60):
            await test(server)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


async def use(server: Server, client: Settings, *, host: str = "127.0.0.1") -> None:
    """Make a topic, write to it and read it."""
    transport = connect(f"kafka://{host}:{server.broker.endpoint.port}", client=client)
    await transport.start()
    try:
        if "t" not in await transport.topics():
            await transport.create_topic("t", partitions=1)
        # Larger than what TLS hands over at once, and than the first piece of a frame's memory.
        value = bytes(700_000)
        produced = await transport.produce({T0: [(b"k", value, 1_767_225_600_000, ())]})
        assert isinstance(produced[T0], int)
        (fetched,) = await transport.fetch({T0: produced[T0]}, max_wait_ms=1000)
        assert [record.value for record in fetched.records] == [value]
        assert await transport.list_offsets([T0], EARLIEST) == {T0: 0}
    finally:
        await transport.stop()


def login(mechanism: str, password: str = "secret", user: str = "alice", protocol: str = "SASL_PLAINTEXT") -> Settings:
    return {
        "security.protocol": protocol,
        "sasl.mechanism": mechanism,
        "sasl.username": user,
        "sasl.password": password,
    }


def a_sasl_broker(protocol: str = "SASL_PLAINTEXT", **settings: Any) -> dict[str, Any]:
    return {
        "security.protocol": protocol,
        "sasl.enabled.mechanisms": ",".join(MECHANISMS),
        "connection.failed.authentication.delay.ms": 1,
        **USERS,
        **settings,
    }


def a_tls_broker(certificates: Certificates, protocol: str = "SSL", **settings: Any) -> dict[str, Any]:
    return {"security.protocol": protocol, "ssl.keystore.location": str(certificates.server), **settings}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_login_opens_the_broker(tmp_path: Path, mechanism: str) -> None:
    async def test(server: Server) -> None:
        await use(server, login(mechanism))
        await use(server, login(mechanism, 'pass "word" \\ ü', "first.last"))

    run(tmp_path, a_sasl_broker(), test)


@pytest.mark.parametrize("loop", LOOPS)
def test_tls_carries_everything(tmp_path: Path, certificates: Certificates, loop: str) -> None:
    async def test(server: Server) -> None:
        await use(server, {"security.protocol": "SSL", "ssl.ca.location": str(certificates.ca)})
        await use(
            server, {"security.protocol": "SSL", "ssl.truststore.location": str(certificates.ca)}, host="localhost"
        )

    run(tmp_path, a_tls_broker(certificates), test, LOOPS[loop])


@pytest.mark.parametrize("loop", LOOPS)
def test_a_login_within_tls_opens_the_broker(tmp_path: Path, certificates: Certificates, loop: str) -> None:
    async def test(server: Server) -> None:
        for mechanism in MECHANISMS:
            await use(server, {**login(mechanism, protocol="SASL_SSL"), "ssl.ca.location": str(certificates.ca)})

    run(tmp_path, {**a_tls_broker(certificates), **a_sasl_broker("SASL_SSL")}, test, LOOPS[loop])


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_wrong_login_is_told_at_once_and_no_password_is_logged(
    tmp_path: Path, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(server: Server) -> None:
        for client in (login(mechanism, "wr0ng-password"), login(mechanism, "wr0ng-password", user="nobody")):
            with pytest.raises(AuthenticationError, match=f"refuses the login of .* by {mechanism}: .*invalid user or"):
                await use(server, client)

    with caplog.at_level(logging.DEBUG):
        run(tmp_path, a_sasl_broker(), test)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 2, "one line per attempt"
    assert "wr0ng-password" not in caplog.text
    assert "secret" not in caplog.text


def test_a_mechanism_that_is_not_enabled_is_told_with_those_that_are(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        with pytest.raises(AuthenticationError, match=r"no login by PLAIN; it takes SCRAM-SHA-256 \(sasl"):
            await use(server, login("PLAIN"))

    run(tmp_path, a_sasl_broker(**{"sasl.enabled.mechanisms": "SCRAM-SHA-256"}), test)


def test_what_does_not_fit_is_told_in_a_sentence(tmp_path: Path, certificates: Certificates) -> None:
    tls = {"security.protocol": "SSL", "ssl.ca.location": str(certificates.ca)}

    async def to_plain(server: Server) -> None:
        with pytest.raises(BrokerUnreachableError, match="hung up instead of beginning TLS"):
            await use(server, tls)
        with pytest.raises(AuthenticationError, match=r"takes no login on this port \(security\.protocol=SASL_PL"):
            await use(server, login("PLAIN"))

    async def to_sasl(server: Server) -> None:
        with pytest.raises(BrokerUnreachableError, match=r"hung up at once\. Is security\.protocol=PLAINTEXT what"):
            await use(server, {})

    async def to_tls(server: Server) -> None:
        with pytest.raises((BrokerUnreachableError, AuthenticationError), match=r"security\.protocol="):
            await use(server, {})
        with pytest.raises(AuthenticationError, match="is not trusted: unable to get local issuer certificate"):
            await use(server, {**tls, "ssl.ca.location": str(certificates.other_ca)})
        with pytest.raises(AuthenticationError, match="is not trusted"):
            await use(server, {"security.protocol": "SSL"})
        with pytest.raises(AuthenticationError, match="takes no login on this port"):
            await use(server, {**login("PLAIN", protocol="SASL_SSL"), "ssl.ca.location": str(certificates.ca)})

    run(tmp_path / "plain", {}, to_plain)
    run(tmp_path / "sasl", a_sasl_broker(), to_sasl)
    for loop in LOOPS.values():
        run(tmp_path / "tls", a_tls_broker(certificates), to_tls, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_connections_that_are_lost_are_made_again_with_their_login(
    tmp_path: Path, certificates: Certificates, loop: str
) -> None:
    client = {**login("SCRAM-SHA-512", protocol="SASL_SSL"), "ssl.ca.location": str(certificates.ca)}

    async def test(server: Server) -> None:
        transport = connect(f"kafka://127.0.0.1:{server.broker.endpoint.port}", client=client)
        await transport.start()
        await transport.create_topic("t", partitions=1)
        for number in range(3):
            for connection in list(server.connections):
                connection.end()
            assert await transport.produce({T0: [(b"k", b"v", 1_767_225_600_000, ())]}) == {T0: number}
            assert set(await transport.topics()) == {"t"}
        await transport.stop()

    run(tmp_path, {**a_tls_broker(certificates), **a_sasl_broker("SASL_SSL")}, test, LOOPS[loop])


def test_a_certificate_for_another_host_is_refused_unless_nobody_asks(
    tmp_path: Path, certificates: Certificates
) -> None:
    client = {"security.protocol": "SSL", "ssl.ca.location": str(certificates.ca)}

    async def test(server: Server) -> None:
        with pytest.raises(AuthenticationError, match=r"is not trusted: .*127\.0\.0\.2"):
            await use(server, client, host="127.0.0.2")
        transport = connect(
            f"kafka://127.0.0.2:{server.broker.endpoint.port}",
            client={**client, "ssl.endpoint.identification.algorithm": ""},
        )
        await transport.start()
        await transport.stop()

    async def everywhere(server: Server) -> None:
        await server.stop()
        server._host = "0.0.0.0"
        await server.start()
        await test(server)

    run(tmp_path, a_tls_broker(certificates), everywhere)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_without_a_certificate_is_refused_where_one_is_required(
    tmp_path: Path, certificates: Certificates, loop: str
) -> None:
    client = {"security.protocol": "SSL", "ssl.ca.location": str(certificates.ca)}

    async def test(server: Server) -> None:
        with pytest.raises((BrokerUnreachableError, AuthenticationError), match="certificate"):
            await use(server, client)
        await use(server, {**client, "ssl.keystore.location": str(certificates.client)})
        key = certificates.client.with_suffix(".key")
        certificate = certificates.client.with_suffix(".crt")
        await use(server, {**client, "ssl.certificate.location": str(certificate), "ssl.key.location": str(key)})

    trust = {"ssl.client.auth": "required", "ssl.truststore.location": str(certificates.ca)}
    run(tmp_path, a_tls_broker(certificates, **trust), test, LOOPS[loop])


def test_a_connection_logs_in_again_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Often enough for a test, which Kafka would not allow.
    monkeypatch.setattr(authentication, "REAUTHENTICATION_LEAST_S", 0.0)

    async def test(server: Server) -> None:
        client = login("SCRAM-SHA-256")
        transport = connect(f"kafka://127.0.0.1:{server.broker.endpoint.port}", client=client)
        await transport.start()
        (connection,) = server.connections
        began = set()
        while len(began) < 3:
            await asyncio.gather(*(transport.topics() for _ in range(4)))
            began.add(connection._authentication._began_s)
        assert connection in server.connections, "it is the same one all the time"
        await transport.stop()

    run(tmp_path, a_sasl_broker(**{"connections.max.reauth.ms": 200}), test)


def test_an_app_logs_in_by_its_settings(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        url = f"kafka://127.0.0.1:{server.broker.endpoint.port}"
        settings: dict[str, Any] = {"store": "memory://", "datadir": str(tmp_path / "app"), "web_enabled": False}
        app = App("a", broker=url, broker_config=login("SCRAM-SHA-256"), **settings)
        topic = app.topic("t", partitions=1, value_type=str)
        seen: asyncio.Queue[str] = asyncio.Queue()

        @app.agent(topic)
        async def agent(stream: Any) -> None:
            async for value in stream:
                seen.put_nowait(value)

        worker = app.worker()
        await worker.start()
        await topic.send(value="hello")
        assert await seen.get() == "hello"
        await worker.stop()
        stranger = App("b", broker=url, broker_config=login("SCRAM-SHA-256", "wrong"), **settings).worker()
        with pytest.raises(AuthenticationError, match="refuses the login of 'alice'"):
            await stranger.start()
        await stranger.stop()

    run(tmp_path / "log", a_sasl_broker(), test)


def test_the_files_of_a_client_that_are_none_are_told_before_anything_is_opened() -> None:
    for changes, message in (
        ({"ssl.ca.location": "/nowhere"}, "ssl.ca.location=/nowhere: No such file"),
        ({"ssl.ca.location": __file__}, "it is a PEM file of CAs"),
        ({"ssl.keystore.location": "/nowhere"}, "it is a PEM file, with the private key"),
    ):
        with pytest.raises(UsageError, match=message):
            connect("kafka://127.0.0.1:1", client={"security.protocol": "SSL", **changes})
