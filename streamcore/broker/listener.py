"""A log that is open in this process, reachable for others: a broker and its server over a node that runs already.

Where it listens stands in the data directory, so that a second process on the same directory finds the first by itself.
"""

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from streamcore.broker.broker import Broker, Endpoint
from streamcore.broker.config import BrokerConfig
from streamcore.broker.metadata_store import LocalMetadataStore
from streamcore.broker.node import Node
from streamcore.broker.server import Server
from streamcore.clock import Clock
from streamcore.errors import UsageError
from streamcore.log.disk import RealDisk, read_file, replace_file

logger = logging.getLogger(__name__)

_FILE: Final = "listener.json"


class Listener:
    """One node's door, shared by those in this process who want it open: it is open until the last of them leaves."""

    def __init__(self, node: Node, directory: str, config: BrokerConfig, clock: Clock) -> None:
        self._node = node
        self._directory = directory
        self._config = config
        self._clock = clock
        self._broker: Broker | None = None
        self._server: Server | None = None
        self._users = 0
        self._changing = asyncio.Lock()

    async def start(
        self, host: str, port: int, *, advertised: Endpoint | None = None, or_any_port: bool = False
    ) -> Endpoint | None:
        """Listen; each start wants a stop.

        Args:
            or_any_port: take a free port where this one is taken.
        Returns:
            Where; None where the door is open already.
        Raises:
            UsageError: the address cannot be had.
        """
        async with self._changing:
            bound = None if self._broker is not None else await self._open(host, port, advertised, or_any_port)
            self._users += 1
            return bound

    async def _open(self, host: str, port: int, advertised: Endpoint | None, or_any_port: bool) -> Endpoint:
        broker = Broker(self._node, LocalMetadataStore(RealDisk(), self._directory), self._config, self._clock)
        await broker.start()
        server = Server(broker, host, port, advertised=advertised)
        try:
            try:
                bound = await server.start()
            except UsageError:
                if not or_any_port:
                    raise
                server = Server(broker, host, 0, advertised=advertised)
                bound = await server.start()
        except BaseException:
            await broker.stop()
            raise
        self._server, self._broker = server, broker
        self._node.door = broker
        content = {"host": bound.host, "port": bound.port, "pid": os.getpid()}
        replace_file(RealDisk(), f"{self._directory}/{_FILE}", json.dumps(content).encode() + b"\n")
        return bound

    async def stop(self) -> None:
        """Where nobody else wants the door, let go of the clients, then of the groups. The node goes on."""
        async with self._changing:
            self._users -= 1
            if self._users == 0:
                await self._close()

    async def _close(self) -> None:
        assert self._broker is not None, "it is open"
        # Whoever commits in this process from here on is alone with the log.
        self._node.door = None
        with suppress(OSError):
            os.remove(f"{self._directory}/{_FILE}")
        if self._server is not None:
            await self._server.stop()
        await self._broker.stop()
        self._broker = self._server = None


def listener_of(directory: str) -> Endpoint | None:
    """Where the process that has a directory open can be reached, as far as it has said so."""
    disk = RealDisk()
    path = f"{directory}/{_FILE}"
    try:
        content = json.loads(read_file(disk, path)) if disk.exists(path) else None
        if isinstance(content, Mapping):
            return Endpoint(str(content["host"]), int(content["port"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.debug("%s does not say where to connect: %s", path, error)
    return None
