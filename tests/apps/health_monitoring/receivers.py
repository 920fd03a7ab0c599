"""Small HTTP servers for tests: they keep what was posted and answer as they are told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any


class Receiver:
    def __init__(self, answer: Callable[[int], int | None]) -> None:
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self._answer = answer  # number of the request (from 0) -> status, or None: no answer at all
        self._changed = asyncio.Condition()

    async def wait(self, count: int) -> list[Any]:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: len(self.bodies) >= count)
        return self.bodies

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            status = self._answer(len(self.bodies))
            async with self._changed:
                self.bodies.append(body)
                self.headers.append(headers)
                self._changed.notify_all()
            if status is None:
                await reader.read()  # until the client has had enough
            else:
                writer.write(f"HTTP/1.1 {status} So\r\nContent-Length: 2\r\n\r\n{{}}".encode())
                await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def receiver(answer: Callable[[int], int | None] = lambda request: 200) -> AsyncIterator[Receiver]:
    it = Receiver(answer)
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield it


@asynccontextmanager
async def running(notifier: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(notifier.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
