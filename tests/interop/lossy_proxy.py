"""A way to a broker on which responses get lost: requests arrive and are carried out, the answer never comes."""

import itertools
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final, Self

PRODUCE: Final = 0


class LossyProxy:
    """Listens on loopback from the start; `upstream` is set once the broker is there.

    A lost response ends its connection, with whatever else was under way on it, and only then: what the broker had got
    until then it works off.

    Args:
        is_lost: whether a response gets lost, by its API and its number among the responses of that API.
    """

    def __init__(self, is_lost: Callable[[int, int], bool]) -> None:
        self.upstream: tuple[str, int] | None = None
        self.lost = 0
        self.is_lossy = True
        self._is_lost = is_lost
        self._counts: dict[int, int] = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._names = itertools.count(1)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            sockets = [self._listener, *self._sockets]
        for sock in sockets:
            _end(sock)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name=f"proxy {next(self._names)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # it is closed
            assert self.upstream is not None, "a client came before the broker was there"
            broker = socket.create_connection(self.upstream)
            with self._lock:
                self._sockets |= {client, broker}
            # Kafka answers in the order of the requests, so the apis of those under way are a queue by their ids.
            asked: dict[int, int] = {}
            ends = threading.Barrier(2)
            self._start(self._forward, client, broker, self._remember(asked), ends)
            self._start(self._forward, broker, client, self._lose(asked), ends)

    @staticmethod
    def _remember(asked: dict[int, int]) -> Callable[[bytes], bool]:
        def look(request: bytes) -> bool:
            api, _, correlation_id = struct.unpack_from(">hhi", request)
            asked[correlation_id] = api
            return True

        return look

    def _lose(self, asked: dict[int, int]) -> Callable[[bytes], bool]:
        def look(response: bytes) -> bool:
            (correlation_id,) = struct.unpack_from(">i", response)
            api = asked.pop(correlation_id)
            with self._lock:
                number = self._counts[api] = self._counts.get(api, 0) + 1
                lost = self.is_lossy and self._is_lost(api, number)
                self.lost += lost
            return not lost

        return look

    def _forward(
        self, source: socket.socket, sink: socket.socket, look: Callable[[bytes], bool], ends: threading.Barrier
    ) -> None:
        """Frame by frame, until one side ends or `look` says that a frame is lost; then both end."""
        try:
            with source.makefile("rb") as frames:
                while len(size := frames.read(4)) == 4:
                    frame = frames.read(struct.unpack(">i", size)[0])
                    if not look(frame):
                        break
                    sink.sendall(size + frame)
        except OSError:
            pass  # the other direction has ended both
        _end(source)
        _end(sink)
        ends.wait()
        with self._lock:
            self._sockets.discard(source)
        source.close()


def _end(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is over already
