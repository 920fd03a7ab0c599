"""The state machine of a login, without a socket: what may be sent when, and that only a right password opens."""

from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamcore.broker.authentication import REAUTHENTICATION_LEAST_S, Authentication
from streamcore.broker.config import BrokerConfig
from streamcore.broker.metadata_store import LocalMetadataStore
from streamcore.broker.settings import BrokerSettings
from streamcore.broker.users import Users
from streamcore.errors import InvalidConfigError, StreamcoreError
from streamcore.log.memory_disk import MemoryDisk
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.sasl.plain import PlainClient
from streamcore.sasl.scram import SCRAM_MECHANISMS, SCRAM_SHA_256, ScramCredential, new_nonce
from streamcore.sasl.scram_client import ScramClient

RIGHT = PlainClient("alice", "secret").first()
REAUTH = {"connections.max.reauth.ms": 10_000}


class Stage:
    """One connection, with a clock in the test's hand."""

    def __init__(self, **changes: Any) -> None:
        disk = MemoryDisk()
        disk.make_directory("/data")
        given = {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": ["PLAIN", "SCRAM-SHA-256"],
            "sasl.users.alice": "secret",
            "sasl.users.bob": "hunter2",
        }
        config = BrokerConfig.parse({**given, **changes})
        self.users = Users(config.sasl_users, LocalMetadataStore(disk, "/data"))
        self.now_s = 0.0
        self.connection = Authentication(config, self.users, lambda: self.now_s)

    def log_in(self, token: bytes = RIGHT) -> ErrorCode:
        assert self.connection.handshake("PLAIN", 1) == ErrorCode.NONE
        return self.connection.authenticate(token).code

    def may(self, name: str) -> bool:
        return self.connection.refusal(messages.BY_NAME[name].key) is None


def test_a_listener_without_sasl_lets_everybody_in_and_takes_no_login() -> None:
    stage = Stage(**{"security.protocol": "PLAINTEXT"})
    assert stage.may("Metadata")
    assert stage.connection.handshake("PLAIN", 1) == ErrorCode.ILLEGAL_SASL_STATE
    assert stage.connection.authenticate(RIGHT).code == ErrorCode.ILLEGAL_SASL_STATE
    assert stage.may("Metadata"), "nothing has happened"


def test_before_the_login_there_is_nothing_but_the_login() -> None:
    stage = Stage()
    allowed = {name for name in messages.BY_NAME if stage.may(name)}
    assert allowed == {"ApiVersions", "SaslHandshake", "SaslAuthenticate"}
    stage.connection.handshake("PLAIN", 1)
    assert {name for name in messages.BY_NAME if stage.may(name)} == {"SaslAuthenticate"}
    assert stage.connection.authenticate(RIGHT).code == ErrorCode.NONE
    assert all(stage.may(name) for name in messages.BY_NAME)
    assert stage.connection.user == "alice"


def test_a_token_before_its_handshake_ends_the_connection() -> None:
    stage = Stage()
    assert stage.connection.authenticate(RIGHT).code == ErrorCode.ILLEGAL_SASL_STATE
    assert stage.connection.failure is not None
    assert not stage.may("Metadata")


def test_an_unknown_mechanism_ends_the_connection() -> None:
    stage = Stage()
    assert stage.connection.handshake("SCRAM-SHA-512", 1) == ErrorCode.UNSUPPORTED_SASL_MECHANISM
    assert stage.connection.failure is not None


def test_a_login_that_failed_is_not_tried_again_on_its_connection() -> None:
    stage = Stage()
    assert stage.log_in(PlainClient("alice", "wrong").first()) == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert stage.connection.failure == "login by PLAIN: invalid user or password"
    assert stage.connection.authenticate(RIGHT).code == ErrorCode.ILLEGAL_SASL_STATE
    assert not stage.may("Metadata")


def test_scram_takes_two_tokens_and_users_of_the_store_count_at_once() -> None:
    stage = Stage()
    stage.users.change({("carol", "SCRAM-SHA-256"): ScramCredential.of(SCRAM_SHA_256, "pw")})
    for user, password in (("alice", "secret"), ("carol", "pw")):
        stage.connection = Authentication(stage.connection._config, stage.users, lambda: 0.0)
        assert stage.connection.handshake("SCRAM-SHA-256", 1) == ErrorCode.NONE
        client = ScramClient(SCRAM_SHA_256, user, password, new_nonce())
        challenge = stage.connection.authenticate(client.first())
        assert not stage.connection.is_done
        client.step(stage.connection.authenticate(client.step(challenge.token)).token)
        assert client.is_complete
        assert (stage.connection.is_done, stage.connection.user) == (True, user)


def test_a_user_that_there_is_not_has_the_same_salt_at_every_login() -> None:
    stage = Stage()
    salts = set()
    for _ in range(2):
        connection = Authentication(stage.connection._config, stage.users, lambda: 0.0)
        connection.handshake("SCRAM-SHA-256", 1)
        salts.add(connection.authenticate(b"n,,n=nobody,r=abc").token.split(b",")[1])
    assert len(salts) == 1


def test_a_session_ends_unless_its_user_logs_in_again() -> None:
    stage = Stage(**REAUTH)
    stage.connection.handshake("PLAIN", 1)
    assert stage.connection.authenticate(RIGHT).session_lifetime_ms == 10_000
    stage.now_s = 9.9
    assert stage.may("Metadata")
    assert stage.log_in() == ErrorCode.NONE
    stage.now_s = 19.8
    assert stage.may("Metadata")
    stage.now_s = 19.9
    assert not stage.may("Metadata")
    assert stage.may("SaslHandshake"), "it can still log in again"


def test_who_logs_in_again_is_the_same_user_by_the_same_mechanism() -> None:
    for again in (("PLAIN", PlainClient("bob", "hunter2").first()), ("SCRAM-SHA-256", b"")):
        stage = Stage(**REAUTH)
        stage.log_in()
        stage.now_s = 5.0
        code = stage.connection.handshake(again[0], 1) or stage.connection.authenticate(again[1]).code
        assert code != ErrorCode.NONE
        assert stage.connection.failure is not None
        assert not stage.may("Metadata")


def test_logging_in_again_is_neither_for_those_who_need_not_nor_all_the_time() -> None:
    stage = Stage()
    stage.log_in()
    stage.now_s = 5.0
    assert stage.connection.handshake("PLAIN", 1) == ErrorCode.ILLEGAL_SASL_STATE
    stage = Stage(**REAUTH)
    stage.log_in()
    stage.now_s = REAUTHENTICATION_LEAST_S / 2
    assert stage.connection.handshake("PLAIN", 1) == ErrorCode.ILLEGAL_SASL_STATE
    assert stage.may("Metadata")


def test_users_that_cannot_be_read_let_nobody_in_and_those_of_the_settings_stay() -> None:
    stage = Stage()
    stage.users._store.put("scram-credentials", {"carol": {"SCRAM-SHA-256": {"salt": "!"}}}, 0)
    assert stage.users.credentials("carol") == {}
    assert stage.users.names() == ["alice", "bob"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sasl.users.eve": ""}, "must be a password"),
        ({"sasl.users.eve": 1234}, "must be a password"),
        ({"sasl.enabled.mechanisms": "GSSAPI"}, "'GSSAPI' is none of them"),
        ({"sasl.enabled.mechanisms": ""}, "needs sasl.enabled.mechanisms"),
        ({"sasl.user.eve": "x"}, "sasl.user.eve"),
    ],
)
def test_settings_of_a_login_that_are_none_are_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        Stage(**changes)


def test_passwords_are_not_shown() -> None:
    config = BrokerConfig.parse({"sasl.users.alice": "secret", "ssl.key.password": "hush"})
    assert "secret" not in repr(config)
    assert "hush" not in repr(config)
    assert config.format()["ssl.key.password"] is None
    assert not [name for name in config.format() if name.startswith("sasl.users")]


def test_settings_that_change_while_the_broker_runs_leave_its_secrets_as_they_are() -> None:
    disk = MemoryDisk()
    disk.make_directory("/data")
    config = BrokerConfig.parse({"sasl.users.alice": "secret", "ssl.key.password": "hush"})
    settings = BrokerSettings(config, LocalMetadataStore(disk, "/data"))
    settings.change("", {"log.retention.ms": "1000"}, validate_only=False)
    assert (settings.config.sasl_users, settings.config.ssl_key_password) == ({"alice": "secret"}, "hush")
    for name in ("sasl.users.eve", "security.protocol", "sasl.enabled.mechanisms"):
        with pytest.raises(StreamcoreError):
            settings.change("", {name: "PLAINTEXT"}, validate_only=False)


class AnyOrder(RuleBasedStateMachine):
    """Whatever comes in whatever order: nobody is let in whose password was not shown on this connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(**REAUTH)
        self.shown: str | None = None
        self.client: ScramClient | None = None
        self.challenge = b""

    @rule(mechanism=st.sampled_from(["PLAIN", *SCRAM_MECHANISMS, "GSSAPI"]), version=st.integers(0, 1))
    def handshake(self, mechanism: str, version: int) -> None:
        self.stage.connection.handshake(mechanism, version)

    @rule(user=st.sampled_from(["alice", "bob", "nobody"]), password=st.sampled_from(["secret", "hunter2", ""]))
    def plain(self, user: str, password: str) -> None:
        answer = self.stage.connection.authenticate(PlainClient(user, password).first())
        if answer.code == ErrorCode.NONE and self.stage.connection.user is not None:
            assert (user, password) in (("alice", "secret"), ("bob", "hunter2"))
            assert self.shown in (None, user)
            self.shown = user

    @rule(token=st.binary(max_size=40))
    def garbage(self, token: bytes) -> None:
        self.stage.connection.authenticate(token)

    @rule(password=st.sampled_from(["secret", "wrong"]))
    def scram_begins(self, password: str) -> None:
        self.client = ScramClient(SCRAM_SHA_256, "alice", password, "abc")
        self.challenge = self.stage.connection.authenticate(self.client.first()).token

    @precondition(lambda self: self.client is not None and self.challenge)
    @rule()
    def scram_ends(self) -> None:
        assert self.client is not None
        proof, right = self.client.step(self.challenge), self.client._password == "secret"
        self.challenge = b""
        answer = self.stage.connection.authenticate(proof)
        if answer.code == ErrorCode.NONE:
            assert right
            assert self.shown in (None, "alice")
            self.shown = "alice"

    @rule(seconds=st.integers(0, 12))
    def time_passes(self, seconds: int) -> None:
        self.stage.now_s += seconds

    @invariant()
    def nobody_is_in_who_has_not_shown_a_password(self) -> None:
        if self.stage.may("Metadata"):
            assert self.shown is not None
            assert self.stage.connection.user == self.shown
            assert self.stage.connection.failure is None


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = hypothesis_settings(max_examples=60, stateful_step_count=20, deadline=None)
