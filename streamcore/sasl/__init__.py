"""The SASL mechanisms of the Kafka world without I/O: tokens in, tokens out, for both ends of a connection."""

from typing import Final, Protocol

PLAIN: Final = "PLAIN"


class ServerExchange(Protocol):
    """The broker's end of one login."""

    user: str | None  # who it is, once all has been shown

    def step(self, token: bytes) -> bytes:
        """What to answer.

        Raises:
            AuthenticationError: the client has not shown who it is, or its token is none.
        """


class ClientExchange(Protocol):
    """The client's end of one login."""

    is_complete: bool  # the broker has shown all that the mechanism has it show

    def first(self) -> bytes:
        """What the client begins with."""

    def step(self, challenge: bytes) -> bytes:
        """What to send next; nothing counts once it is complete.

        Raises:
            AuthenticationError: the broker's token is none, or it does not know the password either.
        """
