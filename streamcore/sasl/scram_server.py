"""The broker's end of SCRAM: two messages in, two out."""

import hmac
from collections.abc import Callable

from streamcore.errors import AuthenticationError
from streamcore.sasl.scram import (
    ScramCredential,
    ScramMechanism,
    attributes,
    combined,
    decoded,
    encoded,
    text_of,
    unescaped,
)


class ScramServer:
    """One login. An attempt that has failed stays so."""

    def __init__(
        self, mechanism: ScramMechanism, credential_of: Callable[[str], ScramCredential], server_nonce: str
    ) -> None:
        """
        Args:
            credential_of: a user's; for one that there is not, one that no password fits.
            server_nonce: printable and without a comma, new for every login.
        """
        self._mechanism = mechanism
        self._credential_of = credential_of
        self._nonce = server_nonce
        self._asked: tuple[str, str, str, ScramCredential] | None = None  # what the last message is checked against
        self._is_over = False
        self.user: str | None = None

    def step(self, token: bytes) -> bytes:
        if self._is_over:
            raise AuthenticationError("a SCRAM login has two messages and no third")
        if self._asked is None:
            try:
                return self._first(text_of(token))
            except AuthenticationError:
                self._is_over = True
                raise
        self._is_over = True
        return self._final(text_of(token), *self._asked)

    def _first(self, message: str) -> bytes:
        binding, _, rest = message.partition(",")
        authorize_as, _, bare = rest.partition(",")
        if binding not in ("n", "y"):
            raise AuthenticationError("the client asks for channel binding, which is not offered")
        if authorize_as and not authorize_as.startswith("a="):
            raise AuthenticationError("a SCRAM message that does not begin with a GS2 header")
        name, client_nonce = attributes(bare, "nr")
        user = unescaped(name)
        if unescaped(authorize_as[2:]) not in ("", user):
            raise AuthenticationError(f"user {user!r} may not act for somebody else")
        credential = self._credential_of(user)
        self._nonce = client_nonce + self._nonce
        challenge = f"r={self._nonce},s={encoded(credential.salt)},i={credential.iterations}"
        # The header comes again with the proof, so that nobody has changed it on the way.
        self._asked = (user, encoded(f"{binding},{authorize_as},".encode()), f"{bare},{challenge}", credential)
        return challenge.encode()

    def _final(self, message: str, user: str, header: str, exchanged: str, credential: ScramCredential) -> bytes:
        unproven, comma, proof = message.rpartition(",p=")
        if not comma:
            raise AuthenticationError("a SCRAM message without a proof")
        sent_header, nonce = attributes(unproven, "cr")
        if sent_header != header:
            raise AuthenticationError("the GS2 header of the last SCRAM message is not that of the first")
        if nonce != self._nonce:
            raise AuthenticationError("the nonce of the last SCRAM message is not that of this login")
        signed = f"{exchanged},{unproven}".encode()
        signature = self._mechanism.hmac(credential.stored_key, signed)
        given = decoded(proof)
        if len(given) != len(signature):
            raise AuthenticationError("a SCRAM proof of a wrong length")
        if not hmac.compare_digest(self._mechanism.hash(combined(given, signature)), credential.stored_key):
            raise AuthenticationError("invalid user or password")
        self.user = user
        return f"v={encoded(self._mechanism.hmac(credential.server_key, signed))}".encode()
