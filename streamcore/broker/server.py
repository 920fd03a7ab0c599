"""The broker's listener: accepts clients, and lets go of them in order."""

import asyncio
import logging
from collections import Counter
from typing import Final

from streamcore.broker.authentication import Authentication
from streamcore.broker.broker import Broker, Endpoint
from streamcore.broker.connection import Connection
from streamcore.broker.receive_buffers import ReceiveBuffers
from streamcore.broker.tls import server_context
from streamcore.errors import UsageError

logger = logging.getLogger(__name__)

BACKLOG = 1024  # connections that wait to be accepted; a restart brings all clients back at once
TLS_HANDSHAKE_MAX_S: Final = 10.0  # a handshake that hangs is not counted among the connections
TLS_SHUTDOWN_MAX_S: Final = 5.0  # how long the other end may take to say that it has closed as well


class Server:
    """Made stopped; `start` binds."""

    def __init__(self, broker: Broker, host: str, port: int, *, advertised: Endpoint | None = None) -> None:
        self.broker = broker
        self._host = host
        self._port = port
        self._advertised = advertised
        self._server: asyncio.Server | None = None
        self.buffers = ReceiveBuffers()
        self._by_host: Counter[str] = Counter()

    async def start(self) -> Endpoint:
        """Listen; where.

        Raises:
            UsageError: the address cannot be had.
            InvalidConfigError: the settings of TLS lead to nothing.
        """
        loop = asyncio.get_running_loop()
        tls = server_context(self.broker.config)
        try:
            self._server = await loop.create_server(
                lambda: Connection(self),
                self._host,
                self._port,
                backlog=BACKLOG,
                reuse_address=True,
                ssl=tls,
                ssl_handshake_timeout=TLS_HANDSHAKE_MAX_S if tls is not None else None,
                ssl_shutdown_timeout=TLS_SHUTDOWN_MAX_S if tls is not None else None,
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

    def authentication(self) -> Authentication:
        """What a new connection has shown of who it is: nothing."""
        broker = self.broker
        return Authentication(broker.config, broker.users, asyncio.get_running_loop().time)

    @property
    def connections(self) -> set[Connection]:
        return self.broker.connections

    def opened(self, connection: Connection) -> str | None:
        """Why the connection has to end at once, if it has to."""
        host, config = connection.peer.host, self.broker.config
        self.connections.add(connection)
        self.broker.counters.connections += 1
        self._by_host[host] += 1
        if len(self.connections) > config.max_connections:
            return f"{config.max_connections} connections are there already (max.connections)"
        if self._by_host[host] > config.max_connections_per_ip:
            return f"{config.max_connections_per_ip} connections of its host are there already (max.connections.per.ip)"
        return None

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
        closed = self.broker.counters.closed
        closed[connection.ended_by] = closed.get(connection.ended_by, 0) + 1
        host = connection.peer.host
        self._by_host[host] -= 1
        if not self._by_host[host]:
            del self._by_host[host]
