"""What commands print: tables that survive 80 columns and pipes, JSON for machines, bars only where somebody looks."""

import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
import orjson

Progress = Callable[[int], None]  # called with what was done so far


def print_json(value: Any) -> None:
    """One JSON document on stdout, indented."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode())


def note(text: str) -> None:
    """A remark for the person at the terminal: stderr, so that it is never part of the data."""
    click.echo(click.style(text, dim=True), err=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """A table on stdout: by rich on a terminal, plain aligned columns that nothing cuts off in a pipe.

    Args:
        right: the columns of numbers, which are aligned on the right.
    """
    cells = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich_table(columns, cells, right)
        return
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    for line in [[column.upper() for column in columns], *cells]:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, cell, width in zip(columns, line, widths, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def _print_rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.capitalize(),
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column in right,
        )
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)


@contextmanager
def progress_bar(label: str, total: int, *, unit: str = "records", shown: bool = True) -> Iterator[Progress]:
    """A bar on stderr for work that takes a while; nothing at all when stderr is not a terminal.

    Args:
        shown: False for no bar in any case, as when the data itself goes to the terminal.
    """
    if not shown or not sys.stderr.isatty() or total <= 0:
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=total)
        yield lambda done: bars.update(task, completed=done)


def stdout_is_file() -> bool:
    """Whether the output goes to a file: only then may a bar move beside it. A pipe may end in a pager."""
    try:
        return stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def printable(text: str) -> str:
    """The text with control characters escaped: a record must not be able to talk to the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def show_bytes(data: bytes | None, absent: str = "null") -> str:
    """Bytes for the eye: text as it is, everything else escaped."""
    if data is None:
        return absent
    return printable(data.decode("utf-8", "backslashreplace"))


def json_text(data: bytes | None) -> Any:
    """Bytes for JSON: a string where they are UTF-8, else {"base64": …}, which `produce --format json` takes back."""
    if data is None:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        import base64

        return {"base64": base64.b64encode(data).decode("ascii")}


def json_value(data: bytes | None) -> Any:
    """Like `json_text`, but a JSON object or array stays one.

    Numbers, strings and literals stay text, so that the bytes can be made again from what is printed.
    """
    if data is not None and data[:1] in (b"{", b"["):
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            pass
        else:
            if not (isinstance(value, dict) and value.keys() == {"base64"}):
                return value
    return json_text(data)


def show_time(timestamp_ms: int, *, dash: str = "-") -> str:
    """Local time with milliseconds; `dash` where there is none."""
    if timestamp_ms < 0:
        return dash
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000).isoformat(sep=" ", timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{timestamp_ms} ms"


def iso_time(timestamp_ms: int) -> str | None:
    """UTC in ISO 8601, for JSON; None where there is none or no calendar reaches it."""
    if timestamp_ms < 0:
        return None
    try:
        return (
            datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
    except (ValueError, OverflowError, OSError):
        return None


def show_size(size_bytes: int) -> str:
    """Bytes with a unit: 512 B, 1.5 kB, 20 MB (powers of 1000)."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size_bytes} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def show_duration(duration_ms: int) -> str:
    """A length of time in its largest unit that fits well: 250 ms, 12 s, 5 min, 3 h, 7 days."""
    for unit, unit_ms in (("days", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if duration_ms >= 2 * unit_ms or (duration_ms >= unit_ms and duration_ms % unit_ms == 0):
            return f"{duration_ms / unit_ms:.3g} {unit}"
    return f"{duration_ms} ms"


def plural(count: int, noun: str, several: str = "") -> str:
    """ "1 record", "2 records"."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"
