"""SCRAM (RFC 5802, RFC 7677): the mechanisms, and what a server keeps of a password.

As Kafka and its clients do, names and passwords are taken as UTF-8 and not prepared (SASLprep): what differs in bytes
differs.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from streamcore.errors import AuthenticationError

# RFC 7677 asks for 4,096 at least; a client computes as many hashes per login, so there is a most (both are Kafka's).
ITERATIONS_LEAST: Final = 4096
ITERATIONS_MOST: Final = 16_384
_SALT_BYTES: Final = 16
_ESCAPED: Final = re.compile(r"(?:[^=]|=2C|=3D)*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ScramMechanism:
    """One of the family."""

    name: str
    number: int  # in Kafka's messages
    hash_name: str

    def hash(self, data: bytes) -> bytes:
        return hashlib.new(self.hash_name, data).digest()

    def hmac(self, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, self.hash_name)

    def salted(self, password: str, salt: bytes, iterations: int) -> bytes:
        return hashlib.pbkdf2_hmac(self.hash_name, password.encode(), salt, iterations)


SCRAM_SHA_256: Final = ScramMechanism("SCRAM-SHA-256", 1, "sha256")
SCRAM_SHA_512: Final = ScramMechanism("SCRAM-SHA-512", 2, "sha512")
SCRAM_MECHANISMS: Final = {mechanism.name: mechanism for mechanism in (SCRAM_SHA_256, SCRAM_SHA_512)}


@dataclass(frozen=True, slots=True)
class ScramCredential:
    """What a server keeps: enough to check a password, not enough to log in with."""

    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def from_salted(cls, mechanism: ScramMechanism, salted: bytes, salt: bytes, iterations: int) -> "ScramCredential":
        client_key = mechanism.hmac(salted, b"Client Key")
        return cls(salt, iterations, mechanism.hash(client_key), mechanism.hmac(salted, b"Server Key"))

    @classmethod
    def of(cls, mechanism: ScramMechanism, password: str) -> "ScramCredential":
        salt = secrets.token_bytes(_SALT_BYTES)
        salted = mechanism.salted(password, salt, ITERATIONS_LEAST)
        return cls.from_salted(mechanism, salted, salt, ITERATIONS_LEAST)


def new_nonce() -> str:
    """Printable, without a comma, and nobody else's."""
    return secrets.token_urlsafe(24)


def attributes(message: str, names: str) -> list[str]:
    """The values of the first attributes of a message, which have to have these one-letter names in this order.

    Raises:
        AuthenticationError
    """
    parts = message.split(",")
    found = [part[2:] for name, part in zip(names, parts, strict=False) if part.startswith(f"{name}=") and part[2:]]
    if len(found) != len(names):
        raise AuthenticationError(f"a SCRAM message without its attributes {', '.join(names)} in this order")
    return found


def text_of(message: bytes) -> str:
    """
    Raises:
        AuthenticationError: it is no UTF-8.
    """
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise AuthenticationError("a SCRAM message that is not UTF-8") from None


def escaped(name: str) -> str:
    return name.replace("=", "=3D").replace(",", "=2C")


def unescaped(name: str) -> str:
    """
    Raises:
        AuthenticationError: a `=` that begins no escape.
    """
    if not _ESCAPED.fullmatch(name):
        raise AuthenticationError("a SCRAM name with a = that is not escaped")
    return name.replace("=2C", ",").replace("=3D", "=")


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decoded(text: str) -> bytes:
    """
    Raises:
        AuthenticationError: it is no base 64.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    # The last letter has bits that say nothing; there is one way to write it all the same.
    if encoded(data) != text:
        raise AuthenticationError("a SCRAM message with an attribute that is not base 64")
    return data


def combined(one: bytes, other: bytes) -> bytes:
    """Exclusive or of two keys of one length."""
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
