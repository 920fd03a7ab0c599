"""What a client is told of TLS and its login, under the names that users of Kafka's Java client or of librdkafka know.

A properties file made for either can be given as it is: settings that say nothing of security are passed over.
"""

import difflib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from streamcore.errors import UsageError
from streamcore.sasl import PLAIN, ClientExchange
from streamcore.sasl.plain import PlainClient
from streamcore.sasl.scram import SCRAM_MECHANISMS, new_nonce
from streamcore.sasl.scram_client import ScramClient

PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = (PLAIN, *SCRAM_MECHANISMS)
_OURS: Final = ("security.", "sasl.", "ssl.")
# Kafka's name, or librdkafka's -> the field.
_NAMES: Final[Mapping[str, str]] = {
    "security.protocol": "protocol",
    "sasl.mechanism": "mechanism",
    "sasl.mechanisms": "mechanism",
    "sasl.username": "username",
    "sasl.password": "password",
    "ssl.ca.location": "ca_location",
    "ssl.truststore.location": "ca_location",
    "ssl.certificate.location": "certificate_location",
    "ssl.keystore.location": "certificate_location",
    "ssl.key.location": "key_location",
    "ssl.key.password": "key_password",
}
_JAAS: Final = "sasl.jaas.config"
_STORE_TYPES: Final = ("ssl.keystore.type", "ssl.truststore.type")
_CHECK_NAME: Final = "ssl.endpoint.identification.algorithm"
_JAAS_FIELD: Final = re.compile(r'\b(username|password)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s";]+))')


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecurity:
    """How to reach a broker: checked once, and no file is read before `tls_context`."""

    protocol: str = "PLAINTEXT"
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    ca_location: str = ""  # a PEM file of those who may vouch for the broker; empty: whom the system trusts
    certificate_location: str = ""  # the client's own, where the broker wants one
    key_location: str = ""  # where the certificate's file does not hold the key as well
    key_password: str = field(default="", repr=False)
    checks_name: bool = True  # the certificate has to be for the broker's host

    @property
    def has_tls(self) -> bool:
        return self.protocol.endswith("SSL")

    @property
    def has_sasl(self) -> bool:
        return self.protocol.startswith("SASL")

    @classmethod
    def parse(cls, settings: Mapping[str, str]) -> "ClientSecurity":
        """From a client's settings.

        Raises:
            UsageError: an unknown one, or some that do not go together.
        """
        fields: dict[str, str] = {}
        given: dict[str, str] = {}
        for name, value in settings.items():
            found = _fields_of(name, value)
            for key, text in found.items():
                if fields.get(key, text) != text:
                    raise UsageError(f"{given[key]} and {name} say the same, and differently: give one of them")
                fields[key], given[key] = text, name
        if (fields.get("username") or fields.get("password")) and "protocol" not in fields:
            raise UsageError(
                f"{given.get('username') or given['password']} is given without security.protocol: SASL_SSL, or "
                "SASL_PLAINTEXT where the network is trusted"
            )
        checks_name = settings.get(_CHECK_NAME, "https").lower() not in ("", "none")
        security = cls(**fields, checks_name=checks_name)
        if security.has_sasl:
            if not security.mechanism:
                raise UsageError(f"security.protocol={security.protocol} needs sasl.mechanism: {', '.join(MECHANISMS)}")
            if not security.username or not security.password:
                raise UsageError(f"security.protocol={security.protocol} needs sasl.username and sasl.password")
        return security

    def tls_context(self) -> ssl.SSLContext | None:
        """What a connection is made with; None without TLS.

        Raises:
            UsageError: a file is not there or not what it should be.
        """
        if not self.has_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_location or None)
        except OSError as error:
            raise UsageError(
                f"ssl.ca.location={self.ca_location}: {_reason(error)}; it is a PEM file of CAs"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = self.checks_name
        if self.certificate_location:
            try:
                context.load_cert_chain(
                    self.certificate_location, self.key_location or None, password=lambda: self.key_password
                )
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"ssl.certificate.location={self.certificate_location}: {_reason(error)}; it is a PEM file, with "
                    "the private key in it or in ssl.key.location, and ssl.key.password opens it"
                ) from error
        return context

    def exchange(self) -> ClientExchange:
        """A new login."""
        if self.mechanism == PLAIN:
            return PlainClient(self.username, self.password)
        return ScramClient(SCRAM_MECHANISMS[self.mechanism], self.username, self.password, new_nonce())


def _fields_of(name: str, value: str) -> dict[str, str]:
    """What one setting says.

    Raises:
        UsageError
    """
    if not name.startswith(_OURS) or name == _CHECK_NAME:
        return {}
    if name in _STORE_TYPES:
        if value.upper() != "PEM":
            raise UsageError(
                f"{name}={value}: only PEM files are read here; `keytool` and `openssl` make one of another"
            )
        return {}
    if name == _JAAS:
        found = {key: re.sub(r"\\(.)", r"\1", quoted) or bare for key, quoted, bare in _JAAS_FIELD.findall(value)}
        if set(found) != {"username", "password"}:
            raise UsageError(f"{_JAAS} has no username and password that could be read")
        return found
    if name not in _NAMES:
        near = difflib.get_close_matches(name, [*_NAMES, _JAAS, _CHECK_NAME, *_STORE_TYPES], n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_NAMES)}"
        raise UsageError(f"the client's setting {name!r} is unknown; {hint}")
    key = _NAMES[name]
    for choices, chosen in ((PROTOCOLS, "protocol"), (MECHANISMS, "mechanism")):
        if key == chosen:
            if value.upper() not in choices:
                raise UsageError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
            return {key: value.upper()}
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{name} is no UTF-8") from None
    return {key: value}


def read_properties(path: Path | str) -> dict[str, str]:
    """The settings in a properties file, as Java writes them.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no UTF-8 text"
        raise UsageError(
            f"{path} cannot be read: {reason}; it is a properties file with the client's settings"
        ) from error
    found: dict[str, str] = {}
    for line in re.sub(r"(?<!\\)((?:\\\\)*)\\\n[ \t]*", r"\1", text).splitlines():
        line = line.strip()
        if not line or line[0] in "#!":
            continue
        name, separator, value = re.match(r"((?:[^=:\s\\]|\\.)*)\s*([=:]?)\s*(.*)", line).groups()  # type: ignore[union-attr]
        if not separator and not value:
            raise UsageError(f"{path}: the line {name!r} is not NAME=VALUE")
        found[_unescaped(name)] = _unescaped(value)
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", _meaning, text)


def _meaning(escape: re.Match[str]) -> str:
    said = escape[1]
    if len(said) > 1:
        return chr(int(said[1:], 16))
    return {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}.get(said, said)


def client_settings(given: Mapping[str, str] | str) -> dict[str, str]:
    """Settings, or those in the file that is named.

    Raises:
        UsageError
    """
    if isinstance(given, str):
        return read_properties(given) if given else {}
    return {str(name): str(value) for name, value in given.items()}


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else "no PEM"
    return getattr(error, "strerror", None) or str(error)
