"""`streamcore broker`: serves a log directory over the Kafka protocol until it is told to stop."""

import asyncio
import logging
import os
import signal
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamcore.cli.commands import Command
from streamcore.cli.settings import DATA_DEFAULT, Settings
from streamcore.errors import UsageError

if TYPE_CHECKING:
    from streamcore.broker.broker import Endpoint

logger = logging.getLogger(__name__)

PORT_DEFAULT = 9092
ENVIRONMENT_PREFIX = "STREAMCORE_BROKER_"


@click.command("broker", cls=Command)
@click.option("--port", "-p", type=click.IntRange(0, 65535), default=PORT_DEFAULT, show_default=True, metavar="PORT")
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen; 0.0.0.0 is everywhere."
)
@click.option("--advertise", metavar="HOST:PORT", help="What clients are told to connect to, where that is another.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
    help="Settings in TOML, under Kafka's names.",
)  # fmt: skip
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="One setting; wins over the file.")
@click.option(
    "--flush", type=click.Choice(["interval", "always"]), default="interval", show_default=True,
    help="always: acks=all waits for the disk, and survives power loss.",
)  # fmt: skip
@click.option(
    "--web-port", type=click.IntRange(0, 65535), metavar="PORT",
    help="Port of the pages and of /metrics and /healthz; there are none without it.",
)  # fmt: skip
@click.option("--web-host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where the pages listen.")
@click.option("--log-json", is_flag=True, help="Log lines as JSON, for machines.")
@click.pass_obj
def broker(
    settings: Settings,
    port: int,
    host: str,
    advertise: str | None,
    config_file: Path | None,
    given: tuple[str, ...],
    flush: str,
    web_port: int | None,
    web_host: str,
    log_json: bool,
) -> None:
    """Serve the log to every Kafka client.

    \b
    Examples:
      streamcore broker
      streamcore broker --data /var/lib/streamcore --port 9092 --host 0.0.0.0 --advertise log.example.org:9092
      streamcore broker --web-port 6067
      streamcore broker --set num.partitions=4 --set auto.create.topics.enable=false

    Prints READY and the address when it can be used. A setting comes from --set, from the environment
    (STREAMCORE_BROKER_NUM_PARTITIONS), from --config, in this order. SIGTERM or Ctrl-C stops in order.

    
    TLS and logins, in the file of --config:
      security.protocol = "SASL_SSL"            # or SSL, SASL_PLAINTEXT
      ssl.keystore.location = "server.pem"      # private key and certificates
      sasl.enabled.mechanisms = ["SCRAM-SHA-512", "PLAIN"]
      [sasl.users]                              # the first ones; kafka-configs adds others, for SCRAM
      admin = "a password"
    """
    from streamcore.broker.broker import Endpoint
    from streamcore.broker.config import BrokerConfig
    from streamcore.broker.node import NodeConfig
    from streamcore.broker.process import serve
    from streamcore.cli.worker import loop_factory

    _start_logging(as_json=log_json)
    config = BrokerConfig.parse({**_from_file(config_file), **_from_environment(), **_from_options(given)})
    advertised = Endpoint(*_endpoint(advertise)) if advertise is not None else None
    data = Path(settings.data or os.environ.get("STREAMCORE_DATA") or DATA_DEFAULT).resolve()

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(
            data,
            host,
            port,
            config=config,
            node_config=NodeConfig(flush="always" if flush == "always" else "interval"),
            advertised=advertised,
            on_ready=_ready,
            stop=stop,
            beside=_pages(data, web_host, web_port) if web_port is not None else None,
        )
        logger.info("stopped")

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())


@asynccontextmanager
async def _pages(data: Path, host: str, port: int) -> AsyncIterator[None]:
    """The broker's pages, metrics and probes, for as long as it serves."""
    from streamcore.clock import SYSTEM_CLOCK
    from streamcore.transport.embedded import EmbeddedTransport
    from streamcore.web.broker_site import BrokerSite
    from streamcore.web.server import WebServer

    transport = EmbeddedTransport(str(data))
    await transport.start()
    try:
        server = WebServer(BrokerSite(transport, SYSTEM_CLOCK), clock=SYSTEM_CLOCK)
        await server.start(host, port)
        logger.info("pages at %s", server.url)
        try:
            yield
        finally:
            await server.stop()
    finally:
        await transport.stop()


def _ready(endpoint: "Endpoint") -> None:
    click.echo(f"READY {endpoint.host}:{endpoint.port}")
    sys.stdout.flush()


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.UsageError(f"--advertise {text!r}: it is HOST:PORT, as in log.example.org:9092.")
    return host, int(port)


def _from_options(given: tuple[str, ...]) -> dict[str, object]:
    found: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--set {text!r}: it is NAME=VALUE, as in num.partitions=4.")
        found[name.strip()] = value.strip()
    return found


def _from_environment() -> dict[str, object]:
    return {
        name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("_", "."): value
        for name, value in os.environ.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }


def _from_file(path: Path | None) -> dict[str, object]:
    """The settings of a TOML file; `num.partitions = 4` and a table `[num]` say the same."""
    if path is None:
        return {}
    try:
        return _flat(tomllib.loads(path.read_text()), "")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML file: {error}") from error


def _flat(table: Mapping[str, Any], prefix: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            found.update(_flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def _start_logging(*, as_json: bool) -> None:
    from streamcore.cli.worker import start_logging

    start_logging("info", None)
    if as_json:
        logging.getLogger().handlers[0].setFormatter(_JsonLines())


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        import orjson

        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()
