"""The broker's listener: accepts clients, and lets go of them in order."""

import asyncio
import logging

from streamcore.broker.broker import Broker, Endpoint
from streamcore.broker.connection import Connection
from streamcore.broker.receive_buffers import ReceiveBuffers
from streamcore.errors import UsageError

logger = logging.getLogger(__name__)

BACKLOG = 1024  # connections that wait to be accepted; a restart brings all clients back at once


class Server:
    """Made stopped; `start` binds."""

    def __init__(self, broker: Broker, host: str, port: int, *, advertised: Endpoint | None = None) -> None:
        self.broker = broker
        self._host = host
        self._port = port
        self._advertised = advertised
        self._server: asyncio.Server | None = None
        self.connections: set[Connection] = set()
        self.buffers = ReceiveBuffers()

    async def start(self) -> Endpoint:
        """Listen; where.

        Raises:
            UsageError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self), self._host, self._port, backlog=BACKLOG, reuse_address=True
            )
        except OSError as error:
            raise UsageError(
                f"{self._host}:{self._port} cannot be listened on ({error.strerror or error}): is another broker "
                "running there? Choose another --port"
            ) from error
        bound = Endpoint(self._host, int(self._server.sockets[0].getsockname()[1]))
        self.broker.endpoint = self._advertised or bound
        return bound

    async def stop(self) -> None:
        """Take no more clients, and end the connections of those that are there."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in list(self.connections):
            connection.end()
        await server.wait_closed()

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
