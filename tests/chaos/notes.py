"""What a child writes down, one line at a time, so that a kill loses none of them: phases, acknowledgements, readings.

P <phase>                                           where the worker stands
A <topic> <partition> <base offset> <crc> <crc> …   records whose offset the log has given out
S <topic> <partition> <base offset> <crc> <crc> …   records that were on the log when the child started
C <group> <topic> <partition> <offset>              a committed offset that is acknowledged
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from streamcore.types import TP


def crc_of(key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Sequence[tuple[str, bytes]]) -> int:
    """Over all that a record says; 32 bits are enough for what an accident does."""
    crc = zlib.crc32(repr((timestamp_ms, key, list(headers))).encode())
    return zlib.crc32(b"\0" if value is None else value, crc)


class Notes:
    """A file to append to; a line is in the kernel's hands when its method returns."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def phase(self, phase: str) -> None:
        self._write(f"P {phase}\n")

    def records(self, letter: str, tp: TP, base_offset: int, crcs: Iterable[int]) -> None:
        self._write(f"{letter} {tp.topic} {tp.partition} {base_offset} {' '.join(f'{crc:x}' for crc in crcs)}\n")

    def committed(self, group: str, offsets: Iterable[tuple[TP, int]]) -> None:
        self._write("".join(f"C {group} {tp.topic} {tp.partition} {offset}\n" for tp, offset in offsets))

    def _write(self, text: str) -> None:
        os.write(self._descriptor, text.encode())


class Records(NamedTuple):
    letter: str
    tp: TP
    base_offset: int
    crcs: list[int]


class CommittedOffset(NamedTuple):
    group: str
    tp: TP
    offset: int


class Phase(NamedTuple):
    name: str


class NotesReader:
    """Reads on where it stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def new(self) -> Iterator[Records | CommittedOffset | Phase]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.decode().splitlines():
            kind, *words = line.split(" ")
            if kind == "P":
                yield Phase(words[0])
            elif kind == "C":
                yield CommittedOffset(words[0], TP(words[1], int(words[2])), int(words[3]))
            else:
                yield Records(kind, TP(words[0], int(words[1])), int(words[2]), [int(word, 16) for word in words[3:]])
