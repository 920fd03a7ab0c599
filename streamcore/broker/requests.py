"""What every handler gets beside its request, and how it refuses one."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from streamcore.errors import StreamcoreError

if TYPE_CHECKING:
    from streamcore.broker.authentication import Authentication
    from streamcore.broker.broker import Broker


class Peer(NamedTuple):
    """Who is at the other end."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(slots=True)
class Client:
    """What a connection has told of itself, and what it has asked."""

    since_ms: int
    client_id: str = ""  # of its last request
    software_name: str = ""  # as ApiVersions says (KIP-511)
    software_version: str = ""
    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may want to know beside the request."""

    version: int
    client_id: str
    peer: Peer
    authentication: "Authentication"
    client: Client | None = None  # of a connection; None within the process


class CloseConnectionError(StreamcoreError):
    """The client is to be told by the end of its connection, since the protocol has no answer for it."""


# A handler answers with a response, or with None where the protocol has none (Produce with acks=0).
Handler = Callable[["Broker", Any, Context], Awaitable[Any]]
