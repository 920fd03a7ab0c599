"""The client's end of SCRAM."""

import hmac
from typing import Final

from streamcore.errors import AuthenticationError
from streamcore.sasl.scram import (
    ITERATIONS_LEAST,
    ScramMechanism,
    attributes,
    combined,
    decoded,
    encoded,
    escaped,
    text_of,
)

# Other brokers than Kafka may ask for more than Kafka would; one that asks for this much costs half a second.
ITERATIONS_TAKEN_MOST: Final = 1_000_000
_HEADER: Final = "n,,"  # no channel binding, nobody else to act for


class ScramClient:
    """One login."""

    def __init__(self, mechanism: ScramMechanism, user: str, password: str, client_nonce: str) -> None:
        """
        Args:
            client_nonce: printable and without a comma, new for every login.
        """
        self._mechanism = mechanism
        self._password = password
        self._nonce = client_nonce
        self._bare = f"n={escaped(user)},r={client_nonce}"
        self._expected: bytes | None = None
        self.is_complete = False

    def first(self) -> bytes:
        return f"{_HEADER}{self._bare}".encode()

    def step(self, challenge: bytes) -> bytes:
        text = text_of(challenge)
        if text.startswith("e="):
            raise AuthenticationError(f"the broker refuses the login: {text[2:]}")
        return self._prove(text) if self._expected is None else self._verify(text, self._expected)

    def _prove(self, challenge: str) -> bytes:
        nonce, salt, iterations = attributes(challenge, "rsi")
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise AuthenticationError("the broker's SCRAM challenge is for another login")
        if not iterations.isascii() or not iterations.isdigit() or len(iterations) > 9:
            raise AuthenticationError("the broker's SCRAM challenge has no number of iterations")
        if not ITERATIONS_LEAST <= int(iterations) <= ITERATIONS_TAKEN_MOST:
            raise AuthenticationError(
                f"the broker asks for {iterations} iterations; {ITERATIONS_LEAST} to {ITERATIONS_TAKEN_MOST} are done"
            )
        mechanism = self._mechanism
        salted = mechanism.salted(self._password, decoded(salt), int(iterations))
        unproven = f"c={encoded(_HEADER.encode())},r={nonce}"
        signed = f"{self._bare},{challenge},{unproven}".encode()
        client_key = mechanism.hmac(salted, b"Client Key")
        proof = combined(client_key, mechanism.hmac(mechanism.hash(client_key), signed))
        self._expected = mechanism.hmac(mechanism.hmac(salted, b"Server Key"), signed)
        return f"{unproven},p={encoded(proof)}".encode()

    def _verify(self, answer: str, expected: bytes) -> bytes:
        (signature,) = attributes(answer, "v")
        if not hmac.compare_digest(decoded(signature), expected):
            raise AuthenticationError("the broker does not know the password either: it is not who it says it is")
        self.is_complete = True
        return b""
