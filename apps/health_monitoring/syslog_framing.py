"""Where one syslog message ends and the next begins on a TCP connection (RFC 6587). Pure: bytes in, messages out."""

import re
from typing import NamedTuple

LINE_MAX_BYTES = 64 << 10  # a longer message is cut here and marked; rsyslog's own default is 8 kB

_COUNT = re.compile(rb"([1-9]\d{0,8}) <")  # octet counting; the "<" tells it from a line that starts with a number
_COUNT_BEGUN = re.compile(rb"[1-9]\d{0,8} ?\Z")
_END = re.compile(rb"[\n\x00]")
_BLANKS = b"\r\n\x00"


class Frame(NamedTuple):
    data: bytes
    truncated: bool


class FrameSplitter:
    """The messages of one connection. Each says by its first bytes whether it is octet-counted or ended by LF or NUL.

    Holds at most LINE_MAX_BYTES plus what the last `feed` brought, whatever is sent.
    """

    def __init__(self, line_max_bytes: int = LINE_MAX_BYTES) -> None:
        self._line_max_bytes = line_max_bytes
        self._buffer = bytearray()
        self._skip_bytes = 0  # of an octet-counted message that was cut
        self._skip_to_end = False  # of a line that was cut
        self._searched_bytes = 0  # of the buffer: no end in these, so a line that drips in is searched once

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer)

    @property
    def is_within_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer) or self._skip_bytes > 0 or self._skip_to_end

    def feed(self, data: bytes) -> list[Frame]:
        """The messages that `data` completes."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        searched, self._searched_bytes = self._searched_bytes, 0
        at = 0  # consumed; the buffer is cut once at the end, or many small lines would cost the square
        while at < len(buffer):
            if self._skip_bytes:
                step = min(self._skip_bytes, len(buffer) - at)
                self._skip_bytes -= step
                at += step
            elif self._skip_to_end:
                end = _END.search(buffer, at)
                self._skip_to_end = end is None
                at = end.end() if end else len(buffer)
            elif buffer[at] in _BLANKS:
                at += 1
            elif count := _COUNT.match(buffer, at):
                start, length = count.end() - 1, int(count[1])
                kept = min(length, self._line_max_bytes)
                if len(buffer) - start < kept:
                    break
                frames.append(Frame(bytes(buffer[start : start + kept]), length > kept))
                self._skip_bytes = length - kept
                at = start + kept
            elif len(buffer) - at <= 10 and _COUNT_BEGUN.match(buffer, at):
                break
            elif end := _END.search(buffer, max(at, searched), at + self._line_max_bytes + 1):
                frames.append(Frame(bytes(buffer[at : end.start()]), False))
                at = end.end()
            elif len(buffer) - at > self._line_max_bytes:
                frames.append(Frame(bytes(buffer[at : at + self._line_max_bytes]), True))
                self._skip_to_end = True
                at += self._line_max_bytes
            else:
                self._searched_bytes = len(buffer) - at
                break
        del buffer[:at]
        return frames

    def close(self) -> list[Frame]:
        """What an ended connection leaves behind: a last line without its end."""
        data = bytes(self._buffer)
        self._buffer.clear()
        if count := _COUNT.match(data):  # cut off within a counted message
            return [Frame(data[count.end() - 1 :], True)]
        return [Frame(data, False)] if data else []
