"""What one connection has shown of who it is: a state machine without I/O, as Kafka's SaslServerAuthenticator has it.

```
HANDSHAKE ── SaslHandshake ──► TOKENS ── the exchange is complete ──► DONE ── SaslHandshake ──► TOKENS (KIP-368)
     └─ an unknown mechanism ─────┴─ a token that fails ──► FAILED: the connection ends
```
On a listener without SASL a connection is DONE from the beginning.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NamedTuple

from streamcore.broker.config import BrokerConfig
from streamcore.broker.users import Users
from streamcore.errors import AuthenticationError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.sasl import ServerExchange

# All that somebody may send who has not said who it is.
_API_VERSIONS: Final = messages.ApiVersions.key
_HANDSHAKE: Final = messages.SaslHandshake.key
_AUTHENTICATE: Final = messages.SaslAuthenticate.key
# Kafka's: two in a second are one too many.
REAUTHENTICATION_LEAST_S: Final = 1.0


class State(Enum):
    HANDSHAKE = auto()
    TOKENS = auto()
    DONE = auto()
    FAILED = auto()


class Answer(NamedTuple):
    """To a token."""

    code: ErrorCode
    message: str | None
    token: bytes
    session_lifetime_ms: int  # until the client has to log in again; 0 is for ever


class Authentication:
    """One connection's."""

    def __init__(self, config: BrokerConfig, users: Users, now_s: Callable[[], float]) -> None:
        """
        Args:
            now_s: a clock that never goes back.
        """
        self._config = config
        self._users = users
        self._now_s = now_s
        self._state = State.HANDSHAKE if config.has_sasl else State.DONE
        self._mechanism = ""
        self._exchange: ServerExchange | None = None
        self._began_s = float("-inf")
        self._ends_s = float("inf")  # of the session
        self.user: str | None = None
        self.failure: str | None = None  # why the connection has to end
        # A client of SaslHandshake 0 sends its tokens without Kafka's headers.
        self.takes_bare_tokens = False

    @property
    def is_done(self) -> bool:
        """Whether the client may ask for anything."""
        return self._state is State.DONE

    def refusal(self, key: int) -> str | None:
        """Why a request of this API cannot be answered now."""
        if self._state is State.DONE:
            if self._now_s() >= self._ends_s and key not in (_HANDSHAKE, _AUTHENTICATE):
                return f"{self.user!r} has not logged in again in time (connections.max.reauth.ms)"
            return None
        if self.failure is not None:
            return self.failure
        allowed = (_AUTHENTICATE,) if self._state is State.TOKENS else (_API_VERSIONS, _HANDSHAKE, _AUTHENTICATE)
        if key in allowed:
            return None
        return f"{messages.APIS[key].name} before a login; this listener wants one ({self._config.security_protocol})"

    def handshake(self, mechanism: str, version: int) -> ErrorCode:
        """A client says how it will log in."""
        if self._state is not State.HANDSHAKE and not self._may_log_in_again:
            return ErrorCode.ILLEGAL_SASL_STATE
        if mechanism not in self._config.sasl_enabled_mechanisms:
            self._fail(f"it asks for the mechanism {mechanism[:40]!r}, which is not enabled")
            return ErrorCode.UNSUPPORTED_SASL_MECHANISM
        if self.user is not None and mechanism != self._mechanism:
            self._fail(f"{self.user!r} logs in again by {mechanism}, and did so by {self._mechanism}")
            return ErrorCode.ILLEGAL_SASL_STATE
        self._mechanism = mechanism
        self._exchange = self._users.exchange(mechanism)
        self._state = State.TOKENS
        self._began_s = self._now_s()
        self.takes_bare_tokens = version == 0
        return ErrorCode.NONE

    @property
    def _may_log_in_again(self) -> bool:
        if self._state is not State.DONE or self.user is None or not self._config.connections_max_reauth_ms:
            return False
        return self._now_s() - self._began_s >= REAUTHENTICATION_LEAST_S

    def authenticate(self, token: bytes) -> Answer:
        """A client shows who it is."""
        if self._state is State.DONE:
            return Answer(ErrorCode.ILLEGAL_SASL_STATE, "the connection is logged in, or needs no login", b"", 0)
        if self._state is not State.TOKENS or self._exchange is None:
            self._fail("a SASL token before the SaslHandshake that names its mechanism")
            return Answer(ErrorCode.ILLEGAL_SASL_STATE, self.failure, b"", 0)
        try:
            answer = self._exchange.step(token)
        except AuthenticationError as error:
            self._fail(f"login by {self._mechanism}: {error}")
            return Answer(ErrorCode.SASL_AUTHENTICATION_FAILED, str(error), b"", 0)
        user = self._exchange.user
        if user is None:
            return Answer(ErrorCode.NONE, None, answer, 0)
        if self.user is not None and user != self.user:
            self._fail(f"{self.user!r} logs in again as {user!r}")
            return Answer(ErrorCode.SASL_AUTHENTICATION_FAILED, "a connection stays its user's", b"", 0)
        self.user = user
        self._state, self._exchange, self.takes_bare_tokens = State.DONE, None, False
        lifetime_ms = self._config.connections_max_reauth_ms
        if lifetime_ms:
            self._ends_s = self._now_s() + lifetime_ms / 1000
        return Answer(ErrorCode.NONE, None, answer, lifetime_ms)

    def _fail(self, reason: str) -> None:
        self._state, self._exchange, self.failure = State.FAILED, None, reason
        self.takes_bare_tokens = False
