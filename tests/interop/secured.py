"""Brokers that want TLS and a login, and what each client has to be told for it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.certificates import Certificates, make_certificates
from tests.interop import apache_kafka, our_broker
from tests.interop.apache_kafka import MUTUAL
from tests.interop.cluster import Cluster

PROTOCOLS: Final = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
USER: Final = "admin"
PASSWORD: Final = "admin-secret"
# What a session takes at most. Kafka lets nobody log in twice in a second.
REAUTH_MS: Final = 3000

_APACHE: Final = """\
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={certificates.server}
ssl.truststore.type=PEM
ssl.truststore.location={certificates.ca}
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
connections.max.reauth.ms={reauth_ms}
listener.name.{mutual}.ssl.client.auth=required
"""
_JAAS: Final = """\
listener.name.{listener}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.{listener}.scram-sha-256.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{listener}.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
"""
_OURS: Final = """\
"security.protocol" = "{protocol}"
"ssl.client.auth" = "{client_auth}"
"ssl.truststore.location" = "{certificates.ca}"
"connections.max.reauth.ms" = {reauth_ms}

[ssl.keystore]
location = "{certificates.server}"

[sasl]
"enabled.mechanisms" = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

[sasl.users]
{user} = "{password}"
"""


class Secured(NamedTuple):
    cluster: Cluster
    certificates: Certificates


@contextmanager
def secured_apache_kafka(directory: Path) -> Iterator[Secured]:
    certificates = make_certificates(directory / "certificates")
    settings = _APACHE.format(certificates=certificates, reauth_ms=REAUTH_MS, mutual=MUTUAL.lower())
    for listener in ("sasl_plaintext", "sasl_ssl"):
        settings += _JAAS.format(listener=listener, user=USER, password=PASSWORD)
    users = [
        part
        for mechanism in MECHANISMS[1:]
        for part in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
    ]
    listeners = (*PROTOCOLS, MUTUAL)
    with apache_kafka.apache_kafka(directory, protocols=listeners, settings=settings, format_options=users) as cluster:
        yield Secured(cluster, certificates)


@contextmanager
def secured_brokers(directory: Path) -> Iterator[Secured]:
    """Ours has one listener, so there is a broker for each."""
    certificates = make_certificates(directory / "certificates")
    secured: dict[str, str] = {}
    with ExitStack() as stack:
        for listener in (*PROTOCOLS, MUTUAL):
            config = directory / f"{listener}.toml"
            config.write_text(
                _OURS.format(
                    protocol="SSL" if listener == MUTUAL else listener,
                    client_auth="required" if listener == MUTUAL else "none",
                    certificates=certificates,
                    reauth_ms=REAUTH_MS,
                    user=USER,
                    password=PASSWORD,
                )
            )
            broker = our_broker.our_broker(directory / listener, "--config", str(config))
            secured[listener] = stack.enter_context(broker).bootstrap
        yield Secured(Cluster(our_broker.NAME, "", secured), certificates)


SECURED: Final = {our_broker.NAME: secured_brokers, apache_kafka.NAME: secured_apache_kafka}


class Way(NamedTuple):
    """How a client gets in."""

    secured: Secured
    listener: str
    mechanism: str  # empty where there is no login
    user: str = USER
    password: str = PASSWORD
    has_certificate: bool = True  # where one is asked for

    @property
    def bootstrap(self) -> str:
        return self.secured.cluster.secured[self.listener]

    @property
    def protocol(self) -> str:
        return "SSL" if self.listener == MUTUAL else self.listener

    @property
    def _shown(self) -> Path | None:
        """The certificate, and its key beside it."""
        return self.secured.certificates.client if self.listener == MUTUAL and self.has_certificate else None

    def librdkafka(self) -> dict[str, str]:
        settings = {"bootstrap.servers": self.bootstrap, "security.protocol": self.protocol}
        if self.protocol.endswith("SSL"):
            settings["ssl.ca.location"] = str(self.secured.certificates.ca)
        if self._shown is not None:
            settings["ssl.certificate.location"] = str(self._shown.with_suffix(".crt"))
            settings["ssl.key.location"] = str(self._shown.with_suffix(".key"))
        if self.mechanism:
            settings |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.user,
                "sasl.password": self.password,
            }
        return settings

    def java(self, path: Path) -> Path:
        """A properties file for Kafka's tools, which ours take as well."""
        lines = [f"security.protocol={self.protocol}"]
        if self.protocol.endswith("SSL"):
            lines += ["ssl.truststore.type=PEM", f"ssl.truststore.location={self.secured.certificates.ca}"]
        if self._shown is not None:
            lines += ["ssl.keystore.type=PEM", f"ssl.keystore.location={self._shown}"]
        if self.mechanism:
            module = "plain.Plain" if self.mechanism == "PLAIN" else "scram.Scram"
            lines += [
                f"sasl.mechanism={self.mechanism}",
                f"sasl.jaas.config=org.apache.kafka.common.security.{module}LoginModule required \\",
                f'  username="{self.user}" password="{self.password}";',
            ]
        path.write_text("\n".join(lines) + "\n")
        return path

    def aiokafka(self) -> dict[str, Any]:
        from aiokafka.helpers import create_ssl_context

        settings: dict[str, Any] = {"bootstrap_servers": self.bootstrap, "security_protocol": self.protocol}
        if self.protocol.endswith("SSL"):
            shown = {}
            if self._shown is not None:
                shown = {
                    "certfile": str(self._shown.with_suffix(".crt")),
                    "keyfile": str(self._shown.with_suffix(".key")),
                }
            settings["ssl_context"] = create_ssl_context(cafile=str(self.secured.certificates.ca), **shown)
        if self.mechanism:
            settings |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        return settings
