"""A syslog server on UDP and TCP, on one port: every datagram and every framed message becomes a LogLine.

Connections are protocols that only cut bytes into messages and put them on one bounded queue; one task reads the queue,
parses and sends. So there is one task whatever the number of connections, and a slow log slows TCP senders down
(their sockets are no longer read) while UDP, which cannot wait, drops and counts.
"""

import asyncio
import errno
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast

from prometheus_client import Counter, Gauge

from apps.health_monitoring.models import LogLine
from apps.health_monitoring.syslog_framing import LINE_MAX_BYTES, Frame, FrameSplitter
from apps.health_monitoring.syslog_parser import parse
from streamcore.errors import UsageError

logger = logging.getLogger(__name__)

Send = Callable[[LogLine], Awaitable[Any]]
Message = tuple[Frame, str, datetime]  # what, from which address, when

QUEUE_MAX_MESSAGES = 10_000
QUEUE_MAX_BYTES = 16 << 20  # whichever comes first
CONNECTIONS_MAX = 256
IDLE_MAX_S = 600.0  # a connection that has been quiet this long is closed; senders open a new one when they need it
MESSAGE_MAX_S = 30.0  # from a message's first byte to its last: whoever drips bytes must not hold a connection for ever
STOP_TIMEOUT_S = 2.0  # for what is still on the queue when the app stops
UDP_BUFFER_BYTES = 4 << 20  # asked of the kernel, which may give less

RECEIVED = Counter("syslog_messages", "Messages taken from the network.", ["transport"])
LINES = Counter("syslog_lines", "Messages by the form they were in.", ["format"])
TRUNCATED = Counter("syslog_lines_truncated", "Lines cut because they were longer than the receiver takes.")
DROPPED = Counter("syslog_lines_dropped", "Lines lost.", ["reason"])
CONNECTIONS = Gauge("syslog_connections", "Open TCP connections.")
CLOSED = Counter("syslog_connections_closed", "TCP connections that the receiver closed.", ["reason"])


class SyslogReceiver:
    """Listens from `start` to `stop`; `run` does both around its own life."""

    def __init__(
        self,
        send: Send,
        *,
        host: str = "127.0.0.1",
        port: int = 5514,
        loopback_host: str | None = None,
        line_max_bytes: int = LINE_MAX_BYTES,
        connections_max: int = CONNECTIONS_MAX,
        idle_max_s: float = IDLE_MAX_S,
        message_max_s: float = MESSAGE_MAX_S,
        queue_max_messages: int = QUEUE_MAX_MESSAGES,
    ) -> None:
        """
        Args:
            send: takes one line; awaited, so that a busy log is felt. An error of it is logged and counted.
            port: 0 takes any free one; `port` says which after `start`.
            loopback_host: what to call a sender on this machine that gives no name; its address by default.
        """
        self.host = host
        self.port = port
        self.started = asyncio.Event()  # set once the port is open and `port` is the real one
        self._send = send
        self._loopback_host = loopback_host
        self._line_max_bytes = line_max_bytes
        self._connections_max = connections_max
        self._idle_max_s = idle_max_s
        self._message_max_s = message_max_s
        self._queue_max_messages = queue_max_messages
        self._queue: deque[Message] = deque()
        self._queue_bytes = 0
        self._wake = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._paused = False
        self._server: asyncio.Server | None = None
        self._datagrams: asyncio.DatagramTransport | None = None

    async def run(self) -> None:
        """Receive until cancelled.

        Raises:
            UsageError: the port cannot be had.
        """
        await self.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._drain(), name="syslog: parse and send")
                tasks.create_task(self._watch_connections(), name="syslog: idle connections")
        finally:
            await self.stop()

    async def start(self) -> None:
        """Open both sockets; nothing is sent on before `run`."""
        loop = asyncio.get_running_loop()
        tcp, udp = self._bind()
        self._server = await loop.create_server(lambda: _Connection(self), sock=tcp)
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
        self._datagrams = transport
        self.started.set()
        logger.info("syslog: listening on %s:%d, UDP and TCP", self.host, self.port)

    async def stop(self) -> None:
        """Close every socket, then send on what had already arrived."""
        if self._server is not None:
            self._server.close()
        if self._datagrams is not None:
            self._datagrams.close()
        for connection in list(self._connections):
            connection.close("stopping")
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                while self._queue:
                    await self._send_next()
        except TimeoutError:
            DROPPED.labels("stopping").inc(len(self._queue))
            logger.error("syslog: %d lines are lost, the log does not take them", len(self._queue))

    def _bind(self) -> tuple[socket.socket, socket.socket]:
        """Both sockets on one port; with port 0, on one that is free for both."""
        for attempt in range(10):
            tcp = self._bind_one(socket.SOCK_STREAM, self.port)
            try:
                port = tcp.getsockname()[1]
                udp = self._bind_one(socket.SOCK_DGRAM, port)
            except UsageError:
                tcp.close()
                if self.port or attempt == 9:
                    raise
                continue
            self.port = port
            return tcp, udp
        raise AssertionError("unreachable")

    def _bind_one(self, kind: socket.SocketKind, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = socket.socket(family, kind)
        try:
            sock.setblocking(False)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for TCP only: UDP would share the port
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BUFFER_BYTES)
            sock.bind((self.host, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(128)
        except OSError as error:
            sock.close()
            raise _cannot_listen(self.host, port, "tcp" if kind == socket.SOCK_STREAM else "udp", error) from error
        return sock

    # What the protocols call.

    def admit(self, connection: "_Connection") -> None:
        """Take a new connection; where there are too many, the quietest one goes."""
        self._connections.add(connection)
        CONNECTIONS.set(len(self._connections))
        if len(self._connections) > self._connections_max:
            quietest = min(self._connections - {connection}, key=lambda other: other.heard_at, default=connection)
            quietest.close("too many connections")
        if self._paused:
            connection.pause()

    def forget(self, connection: "_Connection") -> None:
        self._connections.discard(connection)
        CONNECTIONS.set(len(self._connections))

    def take_datagram(self, data: bytes, address: str) -> None:
        if self._is_full():
            DROPPED.labels("queue full").inc()
            return
        self._put((Frame(data[: self._line_max_bytes], len(data) > self._line_max_bytes), address, datetime.now(UTC)))
        RECEIVED.labels("udp").inc()

    def take_frames(self, frames: list[Frame], address: str) -> None:
        now = datetime.now(UTC)
        for frame in frames:
            self._put((frame, address, now))
        RECEIVED.labels("tcp").inc(len(frames))
        if self._is_full() and not self._paused:
            self._paused = True
            for connection in self._connections:
                connection.pause()

    def splitter(self) -> FrameSplitter:
        return FrameSplitter(self._line_max_bytes)

    # The queue.

    def _put(self, message: Message) -> None:
        self._queue.append(message)
        self._queue_bytes += len(message[0].data)
        self._wake.set()

    def _is_full(self) -> bool:
        return len(self._queue) >= self._queue_max_messages or self._queue_bytes >= QUEUE_MAX_BYTES

    async def _drain(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._send_next()
                if self._paused and len(self._queue) * 2 < self._queue_max_messages and not self._is_full():
                    self._paused = False
                    for connection in self._connections:
                        connection.resume()

    async def _send_next(self) -> None:
        frame, address, received = self._queue.popleft()
        self._queue_bytes -= len(frame.data)
        if self._loopback_host and address in ("127.0.0.1", "::1"):
            address = self._loopback_host
        line = parse(frame.data, address, received, truncated=frame.truncated)
        LINES.labels(line.format).inc()
        if frame.truncated:
            TRUNCATED.inc()
        try:
            await self._send(line)
        except Exception as error:  # the next line may well go through; one that cannot must not end the receiver
            DROPPED.labels("send failed").inc()
            logger.error("syslog: a line of %s could not be sent on: %s", line.host, error)

    async def _watch_connections(self) -> None:
        """Close what is idle, and what has been at one message for too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(self._idle_max_s, self._message_max_s) / 4)
            if self._paused:
                continue  # it is we who do not read
            now = loop.time()
            for connection in list(self._connections):
                if now - connection.heard_at > self._idle_max_s:
                    connection.close("idle")
                elif connection.message_since is not None and now - connection.message_since > self._message_max_s:
                    connection.close("slow")


def _cannot_listen(host: str, port: int, transport: str, error: OSError) -> UsageError:
    where = f"syslog cannot listen on {host}:{port}/{transport}"
    if error.errno == errno.EADDRINUSE:
        look = "ss -lntp" if transport == "tcp" else "ss -lnup"
        return UsageError(
            f"{where}: the port is in use; `{look} sport = :{port}` names the holder, or choose another port"
        )
    if error.errno == errno.EACCES:
        return UsageError(
            f"{where}: ports below 1024 need a privilege; choose a higher port, or redirect this one to it"
        )
    return UsageError(f"{where}: {error.strerror or error}")


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, receiver: SyslogReceiver) -> None:
        self._receiver = receiver

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._receiver.take_datagram(data, str(addr[0]))

    def error_received(self, exc: Exception) -> None:
        logger.warning("syslog: UDP socket: %s", exc)


class _Connection(asyncio.Protocol):
    """One TCP connection.

    heard_at: loop time of the last bytes. message_since: of the first byte of an unfinished message, or None.
    """

    def __init__(self, receiver: SyslogReceiver) -> None:
        self._receiver = receiver
        self._splitter = receiver.splitter()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._address = "unknown"
        self.heard_at = self._loop.time()
        self.message_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._address = str((transport.get_extra_info("peername") or ("unknown",))[0])
        self._receiver.admit(self)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        frames = self._splitter.feed(data)
        if frames:
            self._receiver.take_frames(frames, self._address)
        if not self._splitter.is_within_message:
            self.message_since = None
        elif frames or self.message_since is None:
            self.message_since = self.heard_at

    def connection_lost(self, exc: Exception | None) -> None:
        self._flush()
        self._receiver.forget(self)

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self, reason: str) -> None:
        CLOSED.labels(reason).inc()
        if reason != "stopping":
            logger.warning("syslog: closing the connection of %s: %s", self._address, reason)
        self._flush()
        self._receiver.forget(self)
        if self._transport is not None:
            self._transport.abort()  # nothing is ever written to it

    def _flush(self) -> None:
        frames = self._splitter.close()
        if frames:
            self._receiver.take_frames(frames, self._address)
