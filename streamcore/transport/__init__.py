"""How the framework reaches a log: in this process or over the wire, chosen by a URL."""

from collections.abc import Mapping
from typing import cast

from streamcore.clock import SYSTEM_CLOCK, Clock
from streamcore.errors import UsageError
from streamcore.transport.base import Transport

_REMEDY = "use embedded:DIR for a log in this process, kafka://HOST:PORT for a broker, or memory:"


def connect(
    url: str, *, flush: str | None = None, clock: Clock = SYSTEM_CLOCK, client: Mapping[str, str] | str = ""
) -> Transport:
    """The transport for a URL; nothing is opened before its `start`.

    Args:
        url: `embedded:DIR`, `kafka://HOST:PORT,…` (a broker of ours or Apache Kafka), `memory:` (private) or
            `memory:NAME` (shared within the process).
        flush: "always" syncs before an acks=all produce returns, so that it survives power loss; "interval" syncs
            every second, so that it survives a killed process; None takes what a directory that is open in this
            process has, or "interval".
        client: for a log in another process, settings of TLS and login under Kafka's or librdkafka's names, or the
            path of a properties file that has them.
    Raises:
        UsageError: a URL that leads nowhere, an unknown flush policy, settings that do not go together.
    """
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise UsageError(f"broker URL {url!r} has no scheme; {_REMEDY}")
    # Here and not above, so that a program that reaches its log over the wire loads no log engine.
    if scheme == "kafka":
        from streamcore.transport.client_settings import ClientSecurity, client_settings
        from streamcore.transport.kafka import KafkaTransport

        security = ClientSecurity.parse(client_settings(client))
        return KafkaTransport(rest.removeprefix("//").rstrip("/"), url=url, security=security)
    from streamcore.transport.embedded import EmbeddedTransport, MemoryTransport
    from streamcore.transport.shared_directory import SharedDirectoryTransport

    if scheme == "memory":
        return MemoryTransport(rest.removeprefix("//"), flush=flush, clock=clock)
    if scheme == "embedded":
        directory = rest.removeprefix("//")
        if not directory:
            raise UsageError(f"broker URL {url!r} names no directory; embedded:./streamcore-data would")

        def make() -> EmbeddedTransport:
            return EmbeddedTransport(directory, url=url, flush=flush, clock=clock)

        # What is not written there, it takes from the transport inside.
        return cast(Transport, SharedDirectoryTransport(make, directory, url, client))
    raise UsageError(f"broker URL {url!r} has the unknown scheme {scheme!r}; {_REMEDY}")
