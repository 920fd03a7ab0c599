"""`streamcore tables`: what is in an app's tables, read from their changelog topics."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import click
import orjson

from streamcore.cli.commands import Commands
from streamcore.cli.output import (
    iso_time,
    json_text,
    note,
    plural,
    print_json,
    print_table,
    progress_bar,
    show_bytes,
    show_size,
    show_time,
)
from streamcore.cli.positions import Position, resolve
from streamcore.cli.problems import CommandError, ExitCode, NotFoundError
from streamcore.cli.reading import Range, read
from streamcore.cli.session import Session, with_session
from streamcore.types import TP

SUFFIX = "-changelog"


@click.group("tables", cls=Commands)
def tables() -> None:
    """List tables and look into them.

    A table's changelog topic holds every change of it; what is shown is the newest value of each key there.

    \b
    Examples:
      streamcore tables list
      streamcore tables get minutes
      streamcore tables get minutes web-1 --app health-monitoring
    """


class Changelog(NamedTuple):
    """A table as its changelog topic's name tells it: `{app}-{table}-changelog`."""

    app: str  # "" where nothing tells the app's name and the table's apart
    table: str
    topic: str
    partitions: int


class Row(NamedTuple):
    """The newest value of one key."""

    key: bytes
    value: bytes
    timestamp: int
    partition: int
    offset: int


@tables.command("list")
@click.option("--app", metavar="ID", help="Only the tables of this app.")
@with_session()
async def list_tables(session: Session, app: str | None) -> None:
    """All tables that have a changelog."""
    found = await _changelogs(session, app)
    sizes: dict[str, tuple[int, int]] = {}
    for info in await session.transport.describe_partitions():
        changes, size = sizes.get(info.tp.topic, (0, 0))
        sizes[info.tp.topic] = (changes + info.log_end_offset - info.log_start_offset, size + info.size_bytes)
    if session.json:
        print_json(
            [
                {
                    "app": log.app,
                    "table": log.table,
                    "changelog": log.topic,
                    "partitions": log.partitions,
                    "changes": sizes[log.topic][0],
                    "size_bytes": sizes[log.topic][1],
                }
                for log in found
            ]
        )
        return
    if not found:
        note(f"No tables yet{f' of app {app!r}' if app else ''}: an app makes their changelogs when it starts.")
        return
    rows = [
        (log.table, log.app or "-", log.partitions, f"{sizes[log.topic][0]:,}", show_size(sizes[log.topic][1]))
        for log in found
    ]
    columns = ["table", "app", "partitions", "changes", "changelog size"]
    print_table(columns, rows, right=columns[2:])


@tables.command("get")
@click.argument("table")
@click.argument("key", required=False)
@click.option("--app", metavar="ID", help="The app whose table it is, where several have one of that name.")
@click.option("--prefix", is_flag=True, help="KEY is how keys begin.")
@click.option("--max", "-n", "limit", type=click.IntRange(min=1), metavar="N", help="Show no more than N keys.")
@with_session()
async def get(session: Session, table: str, key: str | None, app: str | None, prefix: bool, limit: int | None) -> None:
    """Show the newest value of KEY, or of every key.

    KEY may be plain text or the JSON that keys are shown as. For a windowed table it finds every window of the key.

    \b
    Examples:
      streamcore tables get minutes
      streamcore tables get minutes web-1
      streamcore tables get minutes web- --prefix --json
    """
    log = await _find(session, table, app)
    newest = await _read(session, log)
    if key is not None:
        newest = {encoded: row for encoded, row in newest.items() if _matches(encoded, key, prefix)}
        if not newest:
            raise CommandError(
                f"Table '{table}' has no key '{key}': 'streamcore tables get {table}' shows the keys there are.",
                ExitCode.NOT_FOUND,
            )
    rows = [newest[encoded] for encoded in sorted(newest)][:limit]
    if session.json:
        print_json([_as_json(row) for row in rows])
        return
    if not rows:
        note(f"Table '{table}' is empty.")
        return
    shown: list[tuple[object, ...]] = []
    for row in rows:
        name, window = _split_key(row.key)
        times = "" if window is None else " to ".join(show_time(int(second * 1000)) for second in window)
        key_text = name if isinstance(name, str) else orjson.dumps(name).decode()
        shown.append((key_text, times, show_bytes(row.value), row.partition, show_time(row.timestamp)))
    columns = ["key", "window", "value", "partition", "changed"]
    if not any(cells[1] for cells in shown):
        columns.remove("window")
        shown = [(cells[0], *cells[2:]) for cells in shown]
    print_table(columns, shown, right=("partition",))
    if len(rows) < len(newest):
        note(f"{plural(len(newest) - len(rows), 'key')} more; --max shows more.")


def _as_json(row: Row) -> dict[str, Any]:
    name, window = _split_key(row.key)
    told: dict[str, Any] = {"key": name}
    if window is not None:
        told["window"] = {"start": iso_time(int(window[0] * 1000)), "end": iso_time(int(window[1] * 1000))}
    told |= {"value": _decode(row.value), "partition": row.partition, "offset": row.offset}
    return {**told, "time": iso_time(row.timestamp)}


async def _changelogs(session: Session, app: str | None) -> list[Changelog]:
    topics = await session.transport.topics()
    # An app's id and a table's name may both have dashes; groups are named after apps, which tells them apart.
    apps = sorted(await session.transport.groups(), key=len, reverse=True)
    found = []
    for topic in sorted(topics.values()):
        if not topic.name.endswith(SUFFIX):
            continue
        name = topic.name.removesuffix(SUFFIX)
        owners = [app] if app is not None else apps
        owner = next((owner for owner in owners if name.startswith(f"{owner}-")), "")
        if app is not None and not owner:
            continue
        found.append(Changelog(owner, name.removeprefix(f"{owner}-") if owner else name, topic.name, topic.partitions))
    return found


async def _find(session: Session, table: str, app: str | None) -> Changelog:
    logs = await _changelogs(session, app)
    found = [
        log for log in logs if table in (log.table, log.topic) or (not log.app and log.table.endswith(f"-{table}"))
    ]
    if len(found) > 1:
        raise CommandError(f"Several tables have that name, in {', '.join(log.topic for log in found)}: add --app ID.")
    if not found:
        raise NotFoundError(
            "table", table, [log.table for log in logs], "'streamcore tables list' shows the ones there are."
        )
    return found[0]


async def _read(session: Session, log: Changelog) -> dict[bytes, Row]:
    """The newest value of each key, deleted ones left out."""
    tps = [TP(log.topic, partition) for partition in range(log.partitions)]
    positions, _, ends = await resolve(session.transport, Position("beginning"), tps)
    newest: dict[bytes, Row] = {}
    span = Range(positions, ends)
    with progress_bar(f"reading {log.table}", span.total, unit="changes") as progress:
        async for tp, records in read(session.transport, span):
            for record in records:
                if record.key is None:
                    continue
                if record.value is None:
                    newest.pop(record.key, None)
                else:
                    newest[record.key] = Row(record.key, record.value, record.timestamp, tp.partition, record.offset)
            progress(span.done)
    return newest


def _matches(encoded: bytes, wanted: str, prefix: bool) -> bool:
    """Whether a changelog key is the one asked for: as text, as JSON, or as the key of a window."""
    return any(text == wanted or (prefix and text.startswith(wanted)) for text in _spellings(encoded))


def _spellings(encoded: bytes) -> Iterable[str]:
    yield encoded.decode("utf-8", "backslashreplace")
    name, _ = _split_key(encoded)
    yield name if isinstance(name, str) else orjson.dumps(name).decode()


def _split_key(encoded: bytes) -> tuple[Any, tuple[float, float] | None]:
    """A changelog key: the table's key, and the window's start and end in seconds where it has one."""
    match _decode(encoded):
        case [name, [int() | float() as start, int() | float() as end]]:
            return name, (start, end)
        case name:
            return name, None


def _decode(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json_text(data)
