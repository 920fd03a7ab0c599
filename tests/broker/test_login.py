"""Logins and users over a socket, as Kafka's clients send them."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from streamcore.broker.connection import LOGIN_FRAME_MAX_BYTES
from streamcore.broker.server import Server
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.sasl import ClientExchange
from streamcore.sasl.plain import PlainClient
from streamcore.sasl.scram import SCRAM_MECHANISMS, SCRAM_SHA_256, SCRAM_SHA_512, new_nonce
from streamcore.sasl.scram_client import ScramClient

from .wire import Client, serving

ApiVersions: Any = messages.ApiVersions
Handshake: Any = messages.SaslHandshake
Authenticate: Any = messages.SaslAuthenticate
Metadata: Any = messages.Metadata
Alter: Any = messages.AlterUserScramCredentials
Describe: Any = messages.DescribeUserScramCredentials
DescribeConfigs: Any = messages.DescribeConfigs
SECURED = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    "sasl.users.admin": "admin-secret",
    "connection.failed.authentication.delay.ms": 1,
}


def run(path: Path, test: Callable[[Server], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with serving(path, **{**SECURED, **settings}) as server:
            await test(server)

    asyncio.run(main())


async def log_in(client: Client, mechanism: str = "PLAIN", user: str = "admin", password: str = "admin-secret") -> int:
    """The last error code."""
    response = await client.ask(Handshake, 1, Handshake.Request(mechanism=mechanism))
    assert response.error_code == ErrorCode.NONE
    exchange: ClientExchange
    if mechanism == "PLAIN":
        exchange = PlainClient(user, password)
    else:
        exchange = ScramClient(SCRAM_MECHANISMS[mechanism], user, password, new_nonce())
    token = exchange.first()
    while True:
        response = await client.ask(Authenticate, 2, Authenticate.Request(auth_bytes=token))
        if response.error_code or exchange.is_complete:
            return int(response.error_code)
        token = exchange.step(bytes(response.auth_bytes))
        if exchange.is_complete:
            return 0


def test_who_has_not_logged_in_is_told_versions_and_nothing_else(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            response = await client.ask(ApiVersions, 0, ApiVersions.Request())
            assert {Handshake.key, Authenticate.key, Metadata.key} <= {entry.api_key for entry in response.api_keys}
            client.send(Metadata, 9, Metadata.Request(topics=[]))
            assert await client.ended()
        async with Client.of(server) as client:
            client.writer.write(struct.pack(">i", LOGIN_FRAME_MAX_BYTES + 1))
            assert await client.ended()

    run(tmp_path, test)


def test_what_fails_is_answered_and_ends_the_connection(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            response = await client.ask(Handshake, 0, Handshake.Request(mechanism="GSSAPI"))
            assert response.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM
            assert response.mechanisms == ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
            assert await client.ended()
        for mechanism in ("PLAIN", "SCRAM-SHA-256"):
            async with Client.of(server) as client:
                assert await log_in(client, mechanism, password="wrong") == ErrorCode.SASL_AUTHENTICATION_FAILED
                assert await client.ended()
        async with Client.of(server) as client:
            response = await client.ask(Authenticate, 2, Authenticate.Request(auth_bytes=b"\0admin\0admin-secret"))
            assert response.error_code == ErrorCode.ILLEGAL_SASL_STATE
            assert await client.ended()

    run(tmp_path, test)


def test_a_client_of_the_first_handshake_sends_bare_tokens(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        for password, is_right in ((b"admin-secret", True), (b"wrong", False)):
            async with Client.of(server) as client:
                response = await client.ask(Handshake, 0, Handshake.Request(mechanism="PLAIN"))
                assert response.error_code == ErrorCode.NONE
                token = b"\0admin\0" + password
                client.writer.write(struct.pack(">i", len(token)) + token)
                if not is_right:
                    assert await client.ended()
                    continue
                assert await client.reader.readexactly(4) == struct.pack(">i", 0)
                assert (await client.ask(Metadata, 9, Metadata.Request(topics=[]))).brokers

    run(tmp_path, test)


def test_guesses_wait_for_their_answers_and_the_others_do_not(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as good, Client.of(server) as bad:
            assert await log_in(good) == ErrorCode.NONE
            guess = asyncio.create_task(log_in(bad, password="wrong"))
            while not any(connection._authentication.failure for connection in server.connections):
                assert (await good.ask(Metadata, 9, Metadata.Request(topics=[]))).brokers
            assert (await good.ask(Metadata, 9, Metadata.Request(topics=[]))).brokers
            assert not guess.done()
            guess.cancel()

    run(tmp_path, test, **{"connection.failed.authentication.delay.ms": 60_000})


def an_upsertion(user: str, password: str = "pw", iterations: int = 4096, **changes: Any) -> Any:
    mechanism = SCRAM_SHA_256 if changes.get("mechanism", 1) == 1 else SCRAM_SHA_512
    salted = mechanism.salted(password, b"salt", iterations)
    fields = {"mechanism": 1, "salt": b"salt", "salted_password": salted, **changes}
    return Alter.ScramCredentialUpsertion(name=user, iterations=iterations, **fields)


def codes(response: Any) -> dict[str, int]:
    return {result.user: result.error_code for result in response.results}


def described(response: Any) -> dict[str, list[tuple[int, int]] | int]:
    return {
        result.user: result.error_code or [(info.mechanism, info.iterations) for info in result.credential_infos]
        for result in response.results
    }


async def of_admin(server: Server, api: Any, version: int, request: Any) -> Any:
    async with Client.of(server) as client:
        assert await log_in(client, "SCRAM-SHA-512") == ErrorCode.NONE
        return await client.ask(api, version, request)


async def may_log_in(server: Server, mechanism: str, user: str, password: str) -> bool:
    async with Client.of(server) as client:
        return await log_in(client, mechanism, user, password) == ErrorCode.NONE


def test_scram_users_come_change_and_go_and_outlive_a_restart(tmp_path: Path) -> None:
    both = [an_upsertion("alice"), an_upsertion("alice", "other", 8192, mechanism=2)]

    async def test(server: Server) -> None:
        assert not await may_log_in(server, "SCRAM-SHA-256", "alice", "pw")
        assert codes(await of_admin(server, Alter, 0, Alter.Request(upsertions=both))) == {"alice": 0}
        assert await may_log_in(server, "SCRAM-SHA-256", "alice", "pw")
        assert await may_log_in(server, "SCRAM-SHA-512", "alice", "other")
        assert not await may_log_in(server, "SCRAM-SHA-256", "alice", "other")
        assert not await may_log_in(server, "PLAIN", "alice", "pw"), "PLAIN has the users of the settings"

    async def after(server: Server) -> None:
        assert await may_log_in(server, "SCRAM-SHA-256", "alice", "pw")
        found = described(await of_admin(server, Describe, 0, Describe.Request(users=None)))
        assert found == {"admin": [(1, 4096), (2, 4096)], "alice": [(1, 4096), (2, 8192)]}
        new = Alter.Request(upsertions=[an_upsertion("alice", "new")])
        assert codes(await of_admin(server, Alter, 0, new)) == {"alice": 0}
        assert not await may_log_in(server, "SCRAM-SHA-256", "alice", "pw")
        assert await may_log_in(server, "SCRAM-SHA-256", "alice", "new")
        gone = Alter.Request(deletions=[Alter.ScramCredentialDeletion(name="alice", mechanism=1)])
        assert codes(await of_admin(server, Alter, 0, gone)) == {"alice": 0}
        assert not await may_log_in(server, "SCRAM-SHA-256", "alice", "new")
        assert await may_log_in(server, "SCRAM-SHA-512", "alice", "other")

    run(tmp_path, test)
    run(tmp_path, after)
    stored = (tmp_path / "cluster.json").read_text()
    assert "scram-credentials" in stored
    assert "other" not in stored


def test_credentials_that_are_none_change_nothing_of_their_user(tmp_path: Path) -> None:
    deletion = Alter.ScramCredentialDeletion(name="nobody", mechanism=1)
    upsertions = [
        an_upsertion("", "x"),
        an_upsertion("few", iterations=4095),
        an_upsertion("many", iterations=16_385),
        an_upsertion("odd", mechanism=3),
        an_upsertion("twice"),
        an_upsertion("twice", "x"),
        an_upsertion("half"),
        an_upsertion("half", iterations=1, mechanism=2),
        an_upsertion("saltless", salt=b""),
        an_upsertion("admin"),
        an_upsertion("good"),
    ]

    async def test(server: Server) -> None:
        response = await of_admin(server, Alter, 0, Alter.Request(deletions=[deletion], upsertions=upsertions))
        bad = ErrorCode.UNACCEPTABLE_CREDENTIAL
        assert codes(response) == {
            "nobody": ErrorCode.RESOURCE_NOT_FOUND,
            "": bad,
            "few": bad,
            "many": bad,
            "odd": ErrorCode.UNSUPPORTED_SASL_MECHANISM,
            "twice": ErrorCode.DUPLICATE_RESOURCE,
            "half": bad,
            "saltless": bad,
            "admin": bad,
            "good": ErrorCode.NONE,
        }
        users = [Describe.UserName(name=name) for name in ("good", "half", "admin", "admin")]
        assert described(await of_admin(server, Describe, 0, Describe.Request(users=users))) == {
            "good": [(1, 4096)],
            "half": ErrorCode.RESOURCE_NOT_FOUND,
            "admin": ErrorCode.DUPLICATE_RESOURCE,
        }

    run(tmp_path, test)


def test_a_broker_does_not_tell_its_passwords(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        resource = DescribeConfigs.DescribeConfigsResource(resource_type=4, resource_name="1", configuration_keys=None)
        request = DescribeConfigs.Request(resources=[resource], include_synonyms=True)
        response = await of_admin(server, DescribeConfigs, 4, request)
        assert "admin-secret" not in repr(response)
        entries = {entry.name: entry for entry in response.results[0].configs}
        assert [name for name, entry in entries.items() if entry.is_sensitive] == ["ssl.key.password"]
        assert entries["sasl.enabled.mechanisms"].value == "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"

    run(tmp_path, test)
