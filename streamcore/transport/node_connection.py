"""One connection to one broker: requests out, responses back in the same order."""

import asyncio
import struct
from collections import deque
from typing import Any, Final

from streamcore.errors import BrokerUnreachableError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.protocol.errors import UnsupportedVersionError
from streamcore.protocol.messages import Api

_SIZE = struct.Struct(">i")
_HEADER = struct.Struct(">ihhih")
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 30.0  # Kafka's request.timeout.ms
_READ_LIMIT_BYTES = 1 << 20
_SOFTWARE = ("streamcore", "0.1")

_ApiVersions = messages.ApiVersions
_Answer = tuple[memoryview, int]  # a response, and where its body begins


class NodeConnection:
    """Open, ask, close. A connection that has failed stays so; whoever needs one opens another."""

    def __init__(self, host: str, port: int, client_id: str) -> None:
        self.host = host
        self.port = port
        self._client_id = client_id.encode()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._receiving: asyncio.Task[None] | None = None
        self._waiting: deque[tuple[int, asyncio.Future[memoryview]]] = deque()
        self._last_correlation_id = 0
        self._versions: dict[int, tuple[int, int]] = {}
        self.failure: BrokerUnreachableError | None = None

    @property
    def is_open(self) -> bool:
        return self._writer is not None and self.failure is None

    @property
    def is_idle(self) -> bool:
        """Whether every answer has come."""
        return not self._waiting

    async def open(self) -> None:
        """Connect, and find out which versions the broker speaks.

        Raises:
            BrokerUnreachableError
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._reader, self._writer = await asyncio.open_connection(
                    self.host, self.port, limit=_READ_LIMIT_BYTES
                )
        except (OSError, TimeoutError) as error:
            reason = "it does not answer" if isinstance(error, TimeoutError) else (error.strerror or str(error))
            raise BrokerUnreachableError(
                f"no broker at {self.host}:{self.port}: {reason}. Is it running, and is this its address?"
            ) from error
        self._receiving = asyncio.create_task(self._receive(), name=f"broker {self.host}:{self.port}")
        name, version = _SOFTWARE
        request = _ApiVersions.Request(client_software_name=name, client_software_version=version)
        answer = await self._send(_ApiVersions, 3, request)
        response = self._versions_of(await self._answered(answer))
        self._versions = {entry.api_key: (entry.min_version, entry.max_version) for entry in response.api_keys}

    @staticmethod
    def _versions_of(answer: memoryview) -> Any:
        # A broker that does not know version 3 answers in the layout of version 0, and with what it knows (KIP-511).
        (error_code,) = struct.unpack_from(">h", answer, 4)
        return _ApiVersions.read_response(0 if error_code == ErrorCode.UNSUPPORTED_VERSION else 3, answer, 4)

    async def close(self) -> None:
        self._fail(BrokerUnreachableError(f"the connection to {self.host}:{self.port} is closed"))
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)

    def version_of(self, api: Api, most: int | None = None) -> int:
        """The newest version that both sides speak, and that is at most `most`.

        Raises:
            UnsupportedVersionError
        """
        first, last = self._versions.get(api.key, (0, -1))
        version = min(last, api.last_version, api.last_version if most is None else most)
        if version < max(first, api.first_version):
            raise UnsupportedVersionError(
                f"the broker at {self.host}:{self.port} does not speak {api.name} as this client does: it has "
                f"versions {first} to {last}, the client {api.first_version} to {most or api.last_version}"
            )
        return version

    async def ask(self, api: Api, request: Any, *, most: int | None = None, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """The response. A caller that is cancelled leaves the connection in order.

        Args:
            most: the newest version to use.
        Raises:
            BrokerUnreachableError, UnsupportedVersionError
        """
        version = self.version_of(api, most)
        answer = await self._answered(await self._send(api, version, request), timeout_s)
        position = 5 if api.response_header_version(version) else 4
        return api.read_response(version, answer, position)

    async def send_only(self, api: Api, request: Any, *, most: int | None = None) -> None:
        """A request that has no response: Produce with acks=0."""
        self._write(api, self.version_of(api, most), request)
        await self._drain()

    async def _send(self, api: Api, version: int, request: Any) -> "asyncio.Future[memoryview]":
        correlation_id = self._write(api, version, request)
        future: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        self._waiting.append((correlation_id, future))
        await self._drain()
        return future

    def _write(self, api: Api, version: int, request: Any) -> int:
        if self.failure is not None or self._writer is None:
            raise self.failure or BrokerUnreachableError(f"{self.host}:{self.port} is not connected")
        self._last_correlation_id = correlation_id = (self._last_correlation_id + 1) & 0x7FFFFFFF
        out = bytearray(_HEADER.pack(0, api.key, version, correlation_id, len(self._client_id)) + self._client_id)
        if api.request_header_version(version) >= 2:
            out.append(0)
        api.write_request(version, request, out)
        _SIZE.pack_into(out, 0, len(out) - _SIZE.size)
        self._writer.write(out)
        return correlation_id

    async def _drain(self) -> None:
        assert self._writer is not None, "somebody has written"
        try:
            await self._writer.drain()
        except OSError as error:
            raise self._fail(self._lost(error)) from error

    async def _answered(self, answer: "asyncio.Future[memoryview]", timeout_s: float = ANSWER_TIMEOUT_S) -> memoryview:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(answer)
        except TimeoutError:
            # What comes later would be taken for the answer to something else by nobody: the order says whose it is.
            # But a broker that has not answered for so long is as good as gone.
            raise self._fail(
                BrokerUnreachableError(f"the broker at {self.host}:{self.port} has not answered for {timeout_s:g} s")
            ) from None

    async def _receive(self) -> None:
        assert self._reader is not None, "it is connected"
        try:
            while True:
                (size,) = _SIZE.unpack(await self._reader.readexactly(_SIZE.size))
                data = memoryview(await self._reader.readexactly(size))
                (correlation_id,) = _SIZE.unpack_from(data)
                expected, future = self._waiting.popleft()
                if correlation_id != expected:
                    self._fail(
                        BrokerUnreachableError(
                            f"the broker at {self.host}:{self.port} answered {correlation_id} where {expected} was due"
                        )
                    )
                    return
                if not future.done():
                    future.set_result(data)
        except (OSError, asyncio.IncompleteReadError, IndexError) as error:
            self._fail(self._lost(error))

    def _lost(self, error: BaseException) -> BrokerUnreachableError:
        reason = "it has hung up" if isinstance(error, asyncio.IncompleteReadError) else str(error)
        return BrokerUnreachableError(f"the connection to the broker at {self.host}:{self.port} is lost: {reason}")

    def _fail(self, error: BrokerUnreachableError) -> BrokerUnreachableError:
        if self.failure is None:
            self.failure = error
            for _, future in self._waiting:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # whoever was to be told may be gone
            self._waiting.clear()
            if self._writer is not None:
                self._writer.close()
        return self.failure
