"""What the client tests talk to, and what they share: free ports, names of their own, waiting for a condition."""

import itertools
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE_S: Final = 30.0
# Where records with times of their own begin: within the week that a topic keeps them by default.
START_MS: Final = int(time.time() * 1000) - 3_600_000
_POLL_S: Final = 0.05
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cluster:
    name: str
    bootstrap: str  # host:port
    secured: Mapping[str, str] = field(default_factory=dict)  # security protocol -> host:port

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.bootstrap.rpartition(":")
        return host, int(port)


def fresh(name: str) -> str:
    """A topic or group that no other test of this run has."""
    return f"{name}-{os.getpid()}-{next(_numbers)}"


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def until(look: Callable[[], T], *, what: str, seconds: float = PATIENCE_S) -> T:
    """What `look` gives as soon as it is true; for things that another program does and does not announce."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s, last seen: {found!r}"
        time.sleep(_POLL_S)


def answers(address: tuple[str, int]) -> bool:
    """Whether a Kafka broker at `address` answers an ApiVersions request (version 0)."""
    body = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection(address, timeout=2) as sock:
            sock.sendall(struct.pack(">i", len(body)) + body)
            return len(sock.recv(8)) > 0
    except OSError:
        return False


def stop(process: "subprocess.Popen[str]", *, seconds_max: float = 10) -> None:
    """SIGTERM, and SIGKILL for one that does not listen."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def tail(path: Path, bytes_max: int = 4000) -> str:
    return path.read_bytes()[-bytes_max:].decode(errors="replace") if path.exists() else ""
