"""`streamcore dump`: segment and index files, readable, damage included."""

import sys
from pathlib import Path
from typing import Any

import click
import orjson

from streamcore.cli.commands import Command
from streamcore.cli.output import (
    note,
    plural,
    print_table,
    progress_bar,
    show_bytes,
    show_size,
    show_time,
    stdout_is_file,
)
from streamcore.cli.problems import CommandError, ExitCode
from streamcore.cli.record_formats import record_as_json, show_headers
from streamcore.cli.segments import Batch, Entry, batches, check_index, index_entries, odd_bytes, timeindex_entries
from streamcore.cli.settings import Settings
from streamcore.errors import StreamcoreError
from streamcore.types import TP, InRecord

SUFFIXES = (".log", ".index", ".timeindex")


@click.command("dump", cls=Command, short_help="Show what is in segment files, damage included.")
@click.argument("paths", metavar="FILE|DIR...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--deep", is_flag=True, help="Also the records in each batch; an index is checked against its .log.")
@click.option("--summary", is_flag=True, help="One line per segment.  [default for a directory]")
@click.pass_obj
def dump(settings: Settings, paths: tuple[Path, ...], deep: bool, summary: bool) -> None:
    """Show what is in segment files (.log, .index, .timeindex), also while a worker has them open.

    A directory is a partition's or a whole data directory; each segment gets a line. Damaged stretches are
    shown with their position; the exit code is 1 when there are any.

    \b
    Examples:
      streamcore dump streamcore-data
      streamcore dump streamcore-data/syslog-0/00000000000000000000.log
      streamcore dump streamcore-data/syslog-0/00000000000000000000.log --deep | less
    """
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise CommandError(f"There are no segment files ({', '.join(SUFFIXES)}) in {', '.join(map(str, paths))}.")
    if summary or (not deep and any(path.is_dir() for path in paths)):
        problems = _summarize(files, settings.json)
    else:
        problems = 0
        for file in files:
            problems += _Dump(file, deep, settings.json).run()
    if problems:
        if not settings.json:
            click.echo(
                f"{plural(problems, 'problem')} found. A damaged end is cut off when the log is opened next;"
                " damage before it takes its partition offline.",
                err=True,
            )
        raise click.exceptions.Exit(ExitCode.FAILED)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(
            file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file() and _is_named(file)
        )
    if path.suffix not in SUFFIXES or not _is_named(path):
        raise CommandError(
            f"{path} is no segment file: those are named by their first offset, like 00000000000000000000.log"
            " (or .index, .timeindex)."
        )
    return [path]


def _is_named(file: Path) -> bool:
    return file.stem.isdecimal()


def _tp(file: Path) -> TP:
    """The partition that a segment belongs to, from its directory's name."""
    topic, _, partition = file.absolute().parent.name.rpartition("-")
    return TP(topic, int(partition)) if topic and partition.isdecimal() else TP(file.absolute().parent.name, 0)


def _summarize(files: list[Path], as_json: bool) -> int:
    rows = []
    total = sum(file.stat().st_size for file in files)
    done = 0
    with progress_bar("reading", total, unit="bytes", shown=not as_json or stdout_is_file()) as progress:
        for file in files:
            row: dict[str, Any] = {"file": str(file), "size_bytes": file.stat().st_size}
            if file.suffix == ".log":
                row |= _summarize_log(file, lambda position, before=done: progress(before + position))
            else:
                entries = _entries(file, deep=file.with_suffix(".log").exists())
                is_time = file.suffix == ".timeindex"
                problems = [f"{_tell(entry, is_time)}: {entry.problem}" for entry in entries if entry.problem]
                if odd := odd_bytes(file):
                    problems.append(f"{plural(odd, 'byte')} at the end are no whole entry")
                row |= {"entries": len(entries), "problems": problems}
            done += file.stat().st_size
            rows.append(row)
    if as_json:
        for row in rows:
            _print_line(row)
    else:
        _print_summary(rows)
    return sum(len(row["problems"]) for row in rows)


def _summarize_log(file: Path, progress: Any) -> dict[str, Any]:
    count = records = 0
    first = last = None
    times = [-1, -1]
    compressions = set()
    problems = []
    for batch in batches(file):
        progress(batch.position + batch.size_bytes)
        if batch.problem is not None:
            problems.append(f"byte {batch.position}: {batch.problem} ({plural(batch.size_bytes, 'byte')})")
            continue
        header = batch.header
        assert header is not None
        count += 1
        records += header.record_count
        first = header.base_offset if first is None else first
        last = header.last_offset
        times[0] = header.base_timestamp if times[0] < 0 else min(times[0], header.base_timestamp)
        times[1] = max(times[1], header.max_timestamp)
        compressions.add(_compression(batch))
    return {
        "batches": count,
        "records": records,
        "first_offset": first,
        "last_offset": last,
        "first_timestamp": times[0],
        "last_timestamp": times[1],
        "compression": sorted(compressions),
        "problems": problems,
    }


def _print_summary(rows: list[dict[str, Any]]) -> None:
    """A line per segment; what is wrong with its indexes counts as the segment's."""
    by_segment: dict[Path, list[dict[str, Any]]] = {}
    for row in rows:
        by_segment.setdefault(Path(row["file"]).with_suffix(""), []).append(row)
    shown = []
    for segment, parts in by_segment.items():
        log = next((part for part in parts if Path(part["file"]).suffix == ".log"), None)
        damaged = sum(len(part["problems"]) for part in parts)
        size = show_size(sum(part["size_bytes"] for part in parts))
        cells = ["-", "-", "-"] if log is None else [_show_offsets(log), f"{log['records']:,}", f"{log['batches']:,}"]
        state = f"{damaged} damaged" if damaged else "intact"
        shown.append((segment.parent.name, int(segment.name), size, *cells, state))
    columns = ["partition", "segment", "size", "offsets", "records", "batches", "state"]
    print_table(columns, shown, right=("segment", "size", "records", "batches"))
    for row in rows:
        for problem in row["problems"]:
            click.echo(f"{row['file']}: {problem}")


def _show_offsets(row: dict[str, Any]) -> str:
    return "empty" if row["first_offset"] is None else f"{row['first_offset']} to {row['last_offset']}"


class _Dump:
    """Writes one file out, batch by batch or entry by entry."""

    def __init__(self, file: Path, deep: bool, as_json: bool) -> None:
        self._file = file
        self._deep = deep
        self._json = as_json
        self._tp = _tp(file)

    def run(self) -> int:
        """Returns how many problems there are."""
        if not self._json:
            click.echo(f"{self._file} ({show_size(self._file.stat().st_size)})")
        return self._log() if self._file.suffix == ".log" else self._index()

    def _log(self) -> int:
        problems = 0
        base_offset = int(self._file.stem)
        with progress_bar("reading", self._file.stat().st_size, unit="bytes", shown=stdout_is_file()) as progress:
            for batch in batches(self._file):
                problem = batch.problem
                if problem is None and batch.header is not None and batch.header.base_offset < base_offset:
                    problem = f"base offset {batch.header.base_offset} is before the file's first, {base_offset}"
                problems += problem is not None
                self._print_batch(batch, problem)
                if self._deep and problem is None:
                    problems += self._print_records(batch)
                progress(batch.position + batch.size_bytes)
        return problems

    def _print_batch(self, batch: Batch, problem: str | None) -> None:
        header = batch.header
        if self._json:
            line: dict[str, Any] = {"position": batch.position, "size_bytes": batch.size_bytes, "problem": problem}
            if header is not None:
                line |= {
                    "base_offset": header.base_offset,
                    "last_offset": header.last_offset,
                    "record_count": header.record_count,
                    "leader_epoch": header.leader_epoch,
                    "base_timestamp": header.base_timestamp,
                    "max_timestamp": header.max_timestamp,
                    "compression": _compression(batch),
                    "producer_id": header.producer_id,
                    "producer_epoch": header.producer_epoch,
                    "base_sequence": header.base_sequence,
                    "crc": header.crc,
                }
            _print_line({"batch": line})
            return
        where = f"byte {batch.position}:"
        if header is None or (problem is not None and not batch.data):
            click.echo(f"{where} {_red(problem or '')} ({plural(batch.size_bytes, 'byte')})")
            return
        parts = [
            where,
            f"offsets {header.base_offset} to {header.last_offset}",
            plural(header.record_count, "record"),
            plural(batch.size_bytes, "byte"),
            show_time(header.max_timestamp, dash="no time"),
        ]
        if header.compression_code:
            parts.append(_compression(batch))
        if header.producer_id >= 0:
            parts.append(f"producer {header.producer_id}/{header.producer_epoch} from {header.base_sequence}")
        if header.leader_epoch > 0:
            parts.append(f"leader epoch {header.leader_epoch}")
        if problem is not None:
            parts.append(_red(problem))
        click.echo("  ".join(parts))

    def _print_records(self, batch: Batch) -> int:
        from streamcore.records.codec import iterate

        lines = []
        problem = None
        try:
            for record in iterate(batch.data):
                lines.append(self._record(record))
        except (StreamcoreError, ValueError) as error:
            # The checksum holds, so these bytes were written like this.
            problem = f"the records cannot be decoded: {error}"
            if self._json:
                _print_line({"batch": {"position": batch.position, "problem": problem}})
            else:
                lines.append(f"  {_red(problem)}\n".encode())
        sys.stdout.flush()
        sys.stdout.buffer.write(b"".join(lines))
        sys.stdout.buffer.flush()
        return int(problem is not None)

    def _record(self, record: InRecord) -> bytes:
        if self._json:
            return orjson.dumps({"record": record_as_json(self._tp, record)}, option=orjson.OPT_APPEND_NEWLINE)
        line = f"  {record.offset}  {show_time(record.timestamp)}  {show_bytes(record.key, '(null)')}"
        line += f"  {show_bytes(record.value, '(null)')}"
        return (line + (f"  {show_headers(record.headers)}" if record.headers else "") + "\n").encode()

    def _index(self) -> int:
        entries = _entries(self._file, self._deep)
        is_time = self._file.suffix == ".timeindex"
        for entry in entries:
            if self._json:
                names = ("timestamp", "offset") if is_time else ("offset", "position")
                _print_line({"entry": {names[0]: entry.key, names[1]: entry.target, "problem": entry.problem}})
            else:
                click.echo(_tell(entry, is_time) + (f"  {_red(entry.problem)}" if entry.problem else ""))
        odd = odd_bytes(self._file)
        if odd:
            note(f"{odd} bytes at the end are no whole entry.")
        return sum(entry.problem is not None for entry in entries) + bool(odd)


def _entries(file: Path, deep: bool) -> list[Entry]:
    base_offset = int(file.stem)
    if file.suffix == ".timeindex":
        return list(timeindex_entries(file, base_offset))
    entries = list(index_entries(file, base_offset))
    segment = file.with_suffix(".log")
    return check_index(entries, segment) if deep and segment.exists() else entries


def _tell(entry: Entry, is_time: bool = False) -> str:
    if is_time:
        return f"time {show_time(entry.key)} ({entry.key}) -> offset {entry.target}"
    return f"offset {entry.key} -> byte {entry.target}"


def _compression(batch: Batch) -> str:
    assert batch.header is not None
    try:
        return batch.header.compression
    except LookupError:
        return f"unknown compression {batch.header.compression_code}"


def _red(text: str) -> str:
    return click.style(f"DAMAGED: {text}", fg="red")


def _print_line(value: dict[str, Any]) -> None:
    click.echo(orjson.dumps(value).decode())
