"""PLAIN (RFC 4616): user and password as they are, so only TLS keeps them from whoever listens."""

from collections.abc import Callable

from streamcore.errors import AuthenticationError


class PlainServer:
    """Checks one token."""

    def __init__(self, is_right: Callable[[str, str], bool]) -> None:
        """
        Args:
            is_right: whether a user has this password; it takes as long for one that there is not.
        """
        self._is_right = is_right
        self.user: str | None = None

    def step(self, token: bytes) -> bytes:
        try:
            parts = token.decode().split("\0")
        except UnicodeDecodeError:
            raise AuthenticationError("the PLAIN token is not UTF-8") from None
        if len(parts) != 3:
            raise AuthenticationError(f"a PLAIN token has 3 parts, not {len(parts)}")
        authorize_as, user, password = parts
        if not user or not password:
            raise AuthenticationError("the PLAIN token has no user or no password")
        # In one breath, so that an answer does not tell which of the two was wrong.
        if not self._is_right(user, password):
            raise AuthenticationError("invalid user or password")
        if authorize_as not in ("", user):
            raise AuthenticationError(f"user {user!r} may not act for {authorize_as!r}")
        self.user = user
        return b""


class PlainClient:
    """Sends one token."""

    def __init__(self, user: str, password: str) -> None:
        self._token = f"\0{user}\0{password}".encode()
        self.is_complete = True

    def first(self) -> bytes:
        return self._token

    def step(self, challenge: bytes) -> bytes:
        raise AuthenticationError("the broker asks for more than PLAIN has")
