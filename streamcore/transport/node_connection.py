"""One connection to one broker: requests out, responses back in the same order."""

import asyncio
import ssl
import struct
from collections import deque
from typing import Any, Final

from streamcore.errors import AuthenticationError, BrokerUnreachableError, StreamcoreError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.protocol.errors import UnsupportedVersionError
from streamcore.protocol.messages import Api
from streamcore.transport.client_settings import ClientSecurity

_SIZE = struct.Struct(">i")
_HEADER = struct.Struct(">ihhih")
CONNECT_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 1.0  # TLS waits for the other end to say that it closes as well
ANSWER_TIMEOUT_S: Final = 30.0  # Kafka's request.timeout.ms
_READ_LIMIT_BYTES = 1 << 20
# No broker sends as much; the beginning of a TLS alert reads as a size above it.
ANSWER_MAX_BYTES: Final = 256 << 20
# Of the time after which the broker wants a new login; Kafka's clients take 85 to 95 %.
_SESSION_SHARE: Final = 0.85
_SOFTWARE = ("streamcore", "0.1")

_ApiVersions = messages.ApiVersions
_Handshake = messages.SaslHandshake
_Authenticate = messages.SaslAuthenticate
_TLS_ALERT: Final = b"\x15\x03"


class NodeConnection:
    """Open, ask, close. A connection that has failed stays so; whoever needs one opens another."""

    def __init__(
        self, host: str, port: int, client_id: str, security: ClientSecurity, tls: ssl.SSLContext | None
    ) -> None:
        self.host = host
        self.port = port
        self._security = security
        self._tls = tls
        self._client_id = client_id.encode()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._receiving: asyncio.Task[None] | None = None
        self._waiting: deque[tuple[int, asyncio.Future[memoryview]]] = deque()
        self._last_correlation_id = 0
        self._versions: dict[int, tuple[int, int]] = {}
        self._is_proven = False  # the broker has answered somebody who was let in
        self._login = asyncio.Lock()
        self._login_due_s = float("inf")
        self.failure: StreamcoreError | None = None

    @property
    def is_open(self) -> bool:
        return self._writer is not None and self.failure is None

    @property
    def is_idle(self) -> bool:
        """Whether every answer has come."""
        return not self._waiting

    async def open(self) -> None:
        """Connect, find out which versions the broker speaks, and log in.

        Raises:
            BrokerUnreachableError
            AuthenticationError: one of the two does not trust the other.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._reader, self._writer = await asyncio.open_connection(
                    self.host, self.port, limit=_READ_LIMIT_BYTES, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise self._unreachable(error) from error
        self._receiving = asyncio.create_task(self._receive(), name=f"broker {self.host}:{self.port}")
        name, version = _SOFTWARE
        request = _ApiVersions.Request(client_software_name=name, client_software_version=version)
        answer = await self._send(_ApiVersions, 3, request)
        response = self._versions_of(await self._answered(answer))
        self._versions = {entry.api_key: (entry.min_version, entry.max_version) for entry in response.api_keys}
        if self._security.has_sasl:
            try:
                await self._log_in()
            except BaseException:
                await self.close()
                raise

    def _unreachable(self, error: Exception) -> StreamcoreError:
        """Why there is no connection."""
        where = f"{self.host}:{self.port}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return AuthenticationError(
                f"the certificate of the broker at {where} is not trusted: {error.verify_message}. Name the file of "
                "its CA in ssl.ca.location, and connect to a host that it is for"
            )
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            reason = (error.reason or "no TLS").replace("_", " ").lower()
            return AuthenticationError(
                f"no TLS with the broker at {where}: {reason}. Does it speak TLS on this port (security.protocol)?"
            )
        if self._tls is not None and isinstance(error, ssl.SSLEOFError | ConnectionResetError | ConnectionAbortedError):
            return BrokerUnreachableError(
                f"the broker at {where} has hung up instead of beginning TLS. Does it speak TLS on this port "
                "(security.protocol)?"
            )
        reason = "it does not answer" if isinstance(error, TimeoutError) else (_strerror(error) or str(error))
        return BrokerUnreachableError(f"no broker at {where}: {reason}. Is it running, and is this its address?")

    async def _log_in(self) -> None:
        """
        Raises:
            AuthenticationError, BrokerUnreachableError
        """
        where, security = f"the broker at {self.host}:{self.port}", self._security
        handshake = await self._ask(_Handshake, _Handshake.Request(mechanism=security.mechanism))
        if handshake.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM:
            raise AuthenticationError(
                f"{where} takes no login by {security.mechanism}; it takes {', '.join(handshake.mechanisms)} "
                "(sasl.mechanism)"
            )
        if handshake.error_code:
            raise AuthenticationError(f"{where} takes no login on this port (security.protocol={security.protocol})")
        exchange = security.exchange()
        token = exchange.first()
        while True:
            answer = await self._ask(_Authenticate, _Authenticate.Request(auth_bytes=token))
            if answer.error_code:
                said = answer.error_message or f"error {answer.error_code}"
                raise AuthenticationError(
                    f"{where} refuses the login of {security.username!r} by {security.mechanism}: {said}"
                )
            if not exchange.is_complete:
                token = exchange.step(bytes(answer.auth_bytes))
            if exchange.is_complete:
                break
        lifetime_s = answer.session_lifetime_ms / 1000
        if lifetime_s > 0:
            self._login_due_s = asyncio.get_running_loop().time() + _SESSION_SHARE * lifetime_s

    async def _ready(self) -> None:
        """Log in again where that is due. Requests wait meanwhile: between two tokens the broker takes none.

        Raises:
            AuthenticationError, BrokerUnreachableError
        """
        now_s = asyncio.get_running_loop().time
        if now_s() < self._login_due_s and not self._login.locked():
            return
        async with self._login:
            if now_s() >= self._login_due_s:
                try:
                    await self._log_in()
                except AuthenticationError as error:
                    raise self._fail(error) from None

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
        if self._writer is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._writer.wait_closed()
            except (OSError, TimeoutError):
                self._writer.transport.abort()

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
            BrokerUnreachableError, UnsupportedVersionError, AuthenticationError
        """
        await self._ready()
        response = await self._ask(api, request, most=most, timeout_s=timeout_s)
        self._is_proven = True
        return response

    async def _ask(
        self, api: Api, request: Any, *, most: int | None = None, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> Any:
        version = self.version_of(api, most)
        answer = await self._answered(await self._send(api, version, request), timeout_s)
        position = 5 if api.response_header_version(version) else 4
        return api.read_response(version, answer, position)

    async def send_only(self, api: Api, request: Any, *, most: int | None = None) -> None:
        """A request that has no response: Produce with acks=0."""
        await self._ready()
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
                head = await self._reader.readexactly(_SIZE.size)
                (size,) = _SIZE.unpack(head)
                if not 0 <= size <= ANSWER_MAX_BYTES:
                    self._fail(self._no_answer(head))
                    return
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

    def _no_answer(self, head: bytes) -> StreamcoreError:
        where = f"{self.host}:{self.port}"
        if head.startswith(_TLS_ALERT):
            return AuthenticationError(
                f"the broker at {where} speaks TLS on this port: security.protocol=SSL or SASL_SSL"
            )
        return BrokerUnreachableError(f"what is at {where} does not answer as a Kafka broker does")

    def _lost(self, error: BaseException) -> StreamcoreError:
        has_hung_up = isinstance(error, asyncio.IncompleteReadError | ConnectionResetError | ssl.SSLEOFError)
        # From TLS 1.3 on a broker judges the client's certificate when the client thinks that all is well.
        if isinstance(error, ssl.SSLError) and not has_hung_up and not self._is_proven:
            reason = (error.reason or str(error)).replace("_", " ").lower()
            return AuthenticationError(f"the broker at {self.host}:{self.port} has ended TLS: {reason}")
        reason = "it has hung up" if has_hung_up else str(error)
        if has_hung_up and not self._is_proven:
            # A listener that wants something else than it gets has no other way to say so.
            reason += f" at once. Is security.protocol={self._security.protocol} what it wants on this port?"
            if self._tls is not None and not self._security.certificate_location:
                reason += " Or does it want a certificate of the client (ssl.certificate.location)?"
        return BrokerUnreachableError(f"the connection to the broker at {self.host}:{self.port} is lost: {reason}")

    def _fail(self, error: StreamcoreError) -> StreamcoreError:
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


def _strerror(error: Exception) -> str | None:
    return error.strerror if isinstance(error, OSError) else None
