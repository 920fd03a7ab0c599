"""Places in a topic as people write them: `beginning`, `end`, `offset:42`, `-10`, a time, `10m ago`."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.transport.base import Transport

FORMS = (
    "beginning, end, offset:42, -10 (the last ten of each partition),"
    " 10m (ago), 2026-01-31T12:00, 12:00 or @1700000000000"
)

_UNIT_MS = {
    "ms": 1,
    "s": 1000, "sec": 1000, "second": 1000, "seconds": 1000,
    "m": 60_000, "min": 60_000, "minute": 60_000, "minutes": 60_000,
    "h": 3_600_000, "hour": 3_600_000, "hours": 3_600_000,
    "d": 86_400_000, "day": 86_400_000, "days": 86_400_000,
    "w": 604_800_000, "week": 604_800_000, "weeks": 604_800_000,
}  # fmt: skip
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


class Position(NamedTuple):
    """A place in every partition of a topic: `value` is an offset, a count from the end, or Unix ms, as `kind` says."""

    kind: Literal["beginning", "end", "offset", "last", "time"]
    value: int = 0


def parse_duration_ms(text: str) -> int | None:
    """Milliseconds of "10m", "1h30m", "2 days"; None when it is no duration."""
    total = 0.0
    at = 0
    text = text.strip().lower()
    while at < len(text):
        part = _DURATION_PART.match(text, at)
        if part is None or part[2] not in _UNIT_MS:
            return None
        total += float(part[1]) * _UNIT_MS[part[2]]
        at = part.end()
    return int(total) if at else None


def parse_time_ms(text: str, now_ms: int) -> int | None:
    """Unix ms of a point in time, local where no zone is given; None when `text` is none."""
    text = text.strip()
    word = text.lower()
    if re.fullmatch(r"@\d+", word):  # as date(1) writes it; 12 digits or more are milliseconds
        return int(word[1:]) if len(word) > 12 else int(word[1:]) * 1000
    if word == "now":
        return now_ms
    midnight = datetime.fromtimestamp(now_ms / 1000).replace(hour=0, minute=0, second=0, microsecond=0)
    if word in ("today", "yesterday"):
        return int((midnight - timedelta(days=word == "yesterday")).timestamp() * 1000)
    ago = parse_duration_ms(word.removesuffix("ago"))
    if ago is not None:
        return now_ms - ago
    clock = re.fullmatch(r"(\d{1,2}):(\d\d)(?::(\d\d))?", word)
    try:
        if clock:
            return int(
                midnight.replace(hour=int(clock[1]), minute=int(clock[2]), second=int(clock[3] or 0)).timestamp() * 1000
            )
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def parse_position(text: str, now_ms: int) -> Position | None:
    """The position that `text` names, None when it names none."""
    word = text.strip().lower()
    if word in ("beginning", "earliest", "start", "first"):
        return Position("beginning")
    if word in ("end", "latest", "last"):
        return Position("end")
    if offset := re.fullmatch(r"(?:offset:)?(\d+)", word):
        return Position("offset", int(offset[1]))
    if last := re.fullmatch(r"-(\d+)", word):
        return Position("last", int(last[1]))
    time_ms = parse_time_ms(text, now_ms)
    return None if time_ms is None else Position("time", time_ms)


class PositionType(click.ParamType[Position]):
    """A position on the command line."""

    name = "position"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "WHERE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Position:
        from streamcore.clock import SYSTEM_CLOCK

        if isinstance(value, Position):
            return value
        position = parse_position(str(value), SYSTEM_CLOCK.now_ms())
        if position is None:
            self.fail(f"'{value}' is no place in a topic; it is one of {FORMS}", param, ctx)
        return position


class TimeType(click.ParamType[int]):
    """A point in time on the command line, as Unix ms."""

    name = "time"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from streamcore.clock import SYSTEM_CLOCK

        if isinstance(value, int):
            return value
        text = str(value)
        # Unix milliseconds are what programs have at hand; nothing shorter is taken for a time without its @.
        time_ms = parse_time_ms(f"@{text}" if re.fullmatch(r"\d{12,}", text) else text, SYSTEM_CLOCK.now_ms())
        if time_ms is None:
            self.fail(f"'{value}' is no time; write 2026-01-31T12:00, 10m (ago), or Unix milliseconds", param, ctx)
        return time_ms


class DurationType(click.ParamType[int]):
    """A length of time on the command line, in ms."""

    name = "duration"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        duration_ms = parse_duration_ms(str(value))
        if duration_ms is None:
            self.fail(f"'{value}' is no length of time; write 90s, 10m, 1h30m or 7d", param, ctx)
        return duration_ms


async def resolve(
    transport: "Transport", position: Position, tps: Iterable[TP]
) -> tuple[dict[TP, int], Mapping[TP, int], Mapping[TP, int]]:
    """Offsets of a position per partition, with the log's start and end offsets beside them.

    An offset outside the log becomes the nearest end of it.
    """
    from streamcore.transport.base import EARLIEST, LATEST

    tps = list(tps)
    starts = await transport.list_offsets(tps, EARLIEST)
    ends = await transport.list_offsets(tps, LATEST)
    match position.kind:
        case "beginning":
            wanted = dict(starts)
        case "end":
            wanted = dict(ends)
        case "offset":
            wanted = dict.fromkeys(tps, position.value)
        case "last":
            wanted = {tp: ends[tp] - position.value for tp in tps}
        case "time":
            wanted = await transport.list_offsets(tps, position.value)
    return {tp: min(max(wanted[tp], starts[tp]), ends[tp]) for tp in tps}, starts, ends
