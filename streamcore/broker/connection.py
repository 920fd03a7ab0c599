"""One client's connection: bytes to frames, frames to requests, responses in the order of the requests.

Requests of one connection are worked off one after the other, as Kafka does: a response never overtakes another one.
What a client may cost is bounded: unread frames stop the reading, unread responses stop the working off, silence ends
the connection.
"""

import asyncio
import logging
import struct
from collections import deque
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final, Literal, cast

from streamcore.broker.authentication import Authentication
from streamcore.broker.dispatch import answer, is_produce
from streamcore.broker.requests import Client, CloseConnectionError, Peer
from streamcore.errors import StreamcoreError

if TYPE_CHECKING:
    from streamcore.broker.server import Server

logger = logging.getLogger(__name__)

_SIZE = struct.Struct(">i")
# A frame of at least this size that has come in part gets memory of its own, and the rest of it is read into that.
OWN_MEMORY_BYTES: Final = 16 << 10
# Frames that wait for those before them. librdkafka and the Java client have 5 on the way by default.
PIPELINE_MAX_FRAMES: Final = 64
PIPELINE_MAX_BYTES: Final = 32 << 20
# Kafka's sasl.server.max.receive.size: what somebody may send who has not said who it is.
LOGIN_FRAME_MAX_BYTES: Final = 512 << 10
# Silence in the middle of a frame: no client pauses there, so this is one that hung, or one that means harm.
FRAME_SILENCE_MAX_S: Final = 30.0
# From the connection to the end of the login; clients take milliseconds for it.
LOGIN_MAX_S: Final = 60.0
# Why a connection has ended: the client hung up, what it sent is no request that is served here, it could only be told
# this way (acks=0), it did not log in, it was silent, there are too many, an error of ours, or the server stops.
EndedBy = Literal["client", "protocol", "refused", "login", "silence", "limit", "error", "shutdown"]


class Connection(asyncio.BufferedProtocol):
    """Made by the server for each client."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffers = server.buffers
        self._rest = b""  # the beginning of a small frame
        self._frame: bytearray | None = None  # memory of a large frame, as much of it as may come next
        self._frame_bytes = 0  # its size
        self._frame_have = 0
        self._frames: deque[tuple[bytearray | memoryview, int]] = deque()  # and since when, in ns of perf_counter
        self._waiting_bytes = 0
        self._reading_paused = False
        self._arrival: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._authentication: Authentication = server.authentication()
        self._opened_s = self._heard_s = 0.0  # of the loop's clock: the beginning, and the last sign of life
        self._is_working = False  # a request is in its handler, and the client does right to be silent
        self._silence: asyncio.TimerHandle | None = None
        self.peer = Peer("", 0)
        self.client = Client(server.broker.clock.now_ms())
        self.ended_by: EndedBy = "client"

    @property
    def in_flight(self) -> int:
        """Requests that have come and are not answered."""
        return len(self._frames) + self._is_working

    # -- from asyncio --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        address = transport.get_extra_info("peername") or ("", 0)
        self.peer = Peer(str(address[0]), int(address[1]))
        loop = asyncio.get_running_loop()
        self._opened_s = self._heard_s = loop.time()
        refusal = self._server.opened(self)
        if refusal is not None:
            self._close(refusal, "limit")
            return
        self._task = loop.create_task(self._serve(), name=f"client {self.peer}")
        self._look_for_silence()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._transport = None
        for future in (self._arrival, self._writable):
            if future is not None and not future.done():
                future.set_result(None)
        self._server.closed(self)
        if self._silence is not None:
            self._silence.cancel()
        if self._task is not None:
            # A long poll of somebody who is gone.
            self._task.cancel()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._frame is not None:
            if self._frame_have == len(self._frame):
                self._frame = self._buffers.grown(self._frame, self._frame_bytes)
            return memoryview(self._frame)[self._frame_have : self._frame_bytes]
        # Shared by all connections: the loop fills it and calls `buffer_updated` before anything else runs.
        shared = self._buffers.shared
        have = len(self._rest)
        shared[:have] = self._rest
        return shared[have:]

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            return
        self._heard_s = asyncio.get_running_loop().time()
        if self._frame is not None:
            self._frame_have += nbytes
            if self._frame_have == self._frame_bytes:
                frame, self._frame = self._frame, None
                self._enqueue(memoryview(frame)[: self._frame_bytes])
        else:
            self._split(self._buffers.shared[: len(self._rest) + nbytes])

    # -- frames --------------------------------------------------------------------------------------------------------

    def _split(self, view: memoryview) -> None:
        """Cut what has come into frames."""
        position, have = 0, len(view)
        while have - position >= _SIZE.size:
            (size,) = _SIZE.unpack_from(view, position)
            if not self._is_allowed(size):
                return
            start = position + _SIZE.size
            if have - start < size:
                if size >= OWN_MEMORY_BYTES:
                    part = view[start:have]
                    self._frame = self._buffers.take(size, len(part))
                    self._frame[: len(part)] = part
                    self._frame_bytes, self._frame_have = size, len(part)
                    position = have
                break
            self._enqueue(bytearray(view[start : start + size]))
            position = start + size
        self._rest = bytes(view[position:])

    def _is_allowed(self, size: int) -> bool:
        limit = self._server.broker.config.socket_request_max_bytes
        if not self._authentication.is_done:
            limit = min(limit, LOGIN_FRAME_MAX_BYTES)
        if 0 <= size <= limit:
            return True
        # What a browser or a TLS client sends to a plain port looks like this.
        self._close(
            f"a frame of {size} bytes; at most {limit} are taken (is this a Kafka client, without TLS?)", "protocol"
        )
        return False

    def _enqueue(self, frame: bytearray | memoryview) -> None:
        self._frames.append((frame, perf_counter_ns()))
        self._waiting_bytes += len(frame)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
        if not self._reading_paused and self._is_full and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    @property
    def _is_full(self) -> bool:
        return len(self._frames) >= PIPELINE_MAX_FRAMES or self._waiting_bytes >= PIPELINE_MAX_BYTES

    async def _next_frame(self) -> tuple[bytearray | memoryview, int] | None:
        """The next request and when it came; None when the client has gone."""
        while not self._frames:
            if self._closing:
                return None
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
            self._arrival = None
        frame, came_ns = self._frames.popleft()
        self._waiting_bytes -= len(frame)
        if self._reading_paused and not self._is_full and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
        return frame, came_ns

    # -- requests ------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while (found := await self._next_frame()) is not None:
                frame, came_ns = found
                self._is_working = True
                response = await answer(
                    self._server.broker, frame, came_ns, self.peer, self._authentication, self.client
                )
                failure = self._authentication.failure
                if failure is not None:
                    # Whoever guesses passwords waits for each answer.
                    await asyncio.sleep(self._server.broker.config.connection_failed_authentication_delay_ms / 1000)
                self._is_working = False
                self._heard_s = loop.time()
                if response is not None and self._transport is not None:
                    self._transport.writelines(response)
                if type(frame) is memoryview and is_produce(frame):
                    self._buffers.give_back(frame)
                if failure is not None:
                    self._close(failure, "login")
                    return
                if self._writable is not None:
                    await self._writable
        except StreamcoreError as error:
            self._close(str(error), "refused" if isinstance(error, CloseConnectionError) else "protocol")
        except asyncio.CancelledError:
            if not self._closing:
                raise
        except Exception:
            logger.exception("a request of %s ended in an error of ours; its connection ends", self.peer)
            self._close("", "error")

    # -- silence -------------------------------------------------------------------------------------------------------

    def overdue(self, now_s: float) -> tuple[float, int, str]:
        """When the connection has to end if nothing happens until then, how loud that is logged, and why."""
        config = self._server.broker.config
        if not self._is_past_login:
            return self._opened_s + LOGIN_MAX_S, logging.WARNING, f"no login within {LOGIN_MAX_S:g} s"
        idle_s = config.connections_max_idle_ms / 1000
        if self._is_working:
            return now_s + idle_s, logging.INFO, ""
        if (self._rest or self._frame is not None) and not self._reading_paused:
            silence_s = min(FRAME_SILENCE_MAX_S, idle_s)
            reason = f"part of a frame, and then nothing for {silence_s:g} s"
            return self._heard_s + silence_s, logging.WARNING, reason
        return self._heard_s + idle_s, logging.INFO, f"idle for {idle_s:g} s (connections.max.idle.ms)"

    def _look_for_silence(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        due_s, level, reason = self.overdue(now_s)
        if now_s >= due_s:
            self._close(reason, "silence" if self._is_past_login else "login", level=level, abort=True)
            return
        # What is due may come closer meanwhile, by a frame that stops in its middle.
        self._silence = loop.call_at(min(due_s, now_s + FRAME_SILENCE_MAX_S), self._look_for_silence)

    @property
    def _is_past_login(self) -> bool:
        return not self._server.broker.config.has_sasl or self._authentication.user is not None

    def _close(self, reason: str, ended_by: EndedBy, *, level: int = logging.WARNING, abort: bool = False) -> None:
        if not self._closing:
            self.ended_by = ended_by
        if reason and not self._closing:
            logger.log(level, "connection of %s ends: %s", self.peer, reason)
        self._closing = True
        self._is_working = False
        if self._transport is not None:
            # A client that has gone silent may never take what it still has to be sent.
            (self._transport.abort if abort else self._transport.close)()
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def end(self) -> None:
        """The server stops."""
        self.ended_by = "shutdown"
        self._closing = True
        if self._transport is not None:
            self._transport.abort()
