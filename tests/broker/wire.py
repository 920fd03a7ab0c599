"""A broker on a free port of this process, and a client that says exactly what a test wants it to say."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from streamcore.broker.broker import Broker
from streamcore.broker.config import BrokerConfig
from streamcore.broker.metadata_store import LocalMetadataStore
from streamcore.broker.node import Node, NodeConfig
from streamcore.broker.server import Server
from streamcore.clock import SYSTEM_CLOCK
from streamcore.log.directory import LogDirectory
from streamcore.log.disk import RealDisk
from streamcore.protocol.messages import Api


@asynccontextmanager
async def serving(path: Path, **settings: object) -> AsyncIterator[Server]:
    """A broker over the log in `path`; settings have their own names, with dots for underscores."""
    node = Node(lambda: LogDirectory.open(str(path), clock=SYSTEM_CLOCK), NodeConfig(), SYSTEM_CLOCK)
    await node.start()
    config = BrokerConfig.parse({name.replace("_", "."): value for name, value in settings.items()})
    broker = Broker(node, LocalMetadataStore(RealDisk(), str(path)), config, SYSTEM_CLOCK)
    await broker.start()
    server = Server(broker, "127.0.0.1", 0)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
        await broker.stop()
        await node.stop()


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._last = 0

    @classmethod
    @asynccontextmanager
    async def of(cls, server: Server) -> "AsyncIterator[Client]":
        endpoint = server.broker.endpoint
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, limit=64 << 20)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    def frame(self, api: Api, version: int, request: Any, *, client_id: str = "test") -> tuple[int, bytes]:
        """(correlation id, bytes) of a request."""
        self._last += 1
        name = client_id.encode()
        out = bytearray(struct.pack(">hhih", api.key, version, self._last, len(name)) + name)
        if api.request_header_version(version) == 2:
            out.append(0)
        api.write_request(version, request, out)
        return self._last, struct.pack(">i", len(out)) + bytes(out)

    def send(self, api: Api, version: int, request: Any) -> int:
        correlation_id, frame = self.frame(api, version, request)
        self.writer.write(frame)
        return correlation_id

    async def receive(self, api: Api, version: int) -> tuple[int, Any]:
        """(correlation id, response) of what comes next."""
        async with asyncio.timeout(10):
            (size,) = struct.unpack(">i", await self.reader.readexactly(4))
            data = memoryview(await self.reader.readexactly(size))
        (correlation_id,) = struct.unpack_from(">i", data)
        position = 5 if api.response_header_version(version) else 4
        return correlation_id, api.read_response(version, data, position)

    async def ask(self, api: Api, version: int, request: Any) -> Any:
        sent = self.send(api, version, request)
        received, response = await self.receive(api, version)
        assert received == sent
        return response

    async def ended(self) -> bool:
        """Whether the broker ends the connection now."""
        try:
            async with asyncio.timeout(10):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True
