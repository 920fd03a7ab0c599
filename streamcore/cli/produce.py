"""`streamcore produce`: records from an argument, from lines of stdin or a file, or from JSON lines."""

import asyncio
import base64
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import IO, TYPE_CHECKING, Any

import click
import orjson

from streamcore.cli.commands import Command
from streamcore.cli.output import note, plural, print_json, progress_bar
from streamcore.cli.positions import TimeType
from streamcore.cli.problems import CommandError
from streamcore.cli.session import Session, with_session
from streamcore.errors import StreamcoreError
from streamcore.types import TP, OutRecord

if TYPE_CHECKING:
    from streamcore.transport.base import TopicInfo

READ_BYTES = 1 << 20  # one read; one produce call holds what one read brought
PREVIEW_CHARACTERS = 60

Headers = list[tuple[str, bytes]]
Parsed = tuple[OutRecord, int | None]  # the record, and the partition that it names itself


@click.command("produce", cls=Command, short_help="Write records to a topic.")
@click.argument("topic")
@click.argument("value", required=False)
@click.option("--key", "-k", help="Key of the record, or of every line.")
@click.option("--key-separator", "-K", metavar="TEXT", help="Each line is a key, this separator and a value.")
@click.option("--header", "-H", "headers", metavar="NAME=VALUE", multiple=True, help="A header; may be repeated.")
@click.option("--partition", "-p", type=click.IntRange(min=0), help="Write there; by default the key decides.")
@click.option("--timestamp", "-t", type=TimeType(), help="Create time of the records.  [default: now]")
@click.option("--tombstone", is_flag=True, help="Write a null value: the key is deleted.  Needs --key.")
@click.option("--file", "-f", "file", type=click.File("rb"), metavar="PATH", help="Read lines from a file.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["lines", "json"]),
    default="lines",
    show_default=True,
    help="What lines are: a value each, or a JSON object with key, value, headers, timestamp, partition.",
)
@click.option(
    "--acks",
    type=click.Choice(["none", "leader", "all", "0", "1", "-1"]),
    default="all",
    show_default=True,
    help="What to wait for.",
)
@click.option(
    "--compression",
    "-z",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    default="none",
    show_default=True,
    help="Of the batches in the log.",
)
@with_session(creates=True)
async def produce(
    session: Session,
    topic: str,
    value: str | None,
    key: str | None,
    key_separator: str | None,
    headers: tuple[str, ...],
    partition: int | None,
    timestamp: int | None,
    tombstone: bool,
    file: IO[bytes] | None,
    form: str,
    acks: str,
    compression: str,
) -> None:
    """Write records to a topic: VALUE, or one record for each line of stdin or a file.

    \b
    Examples:
      streamcore produce greetings hello
      streamcore produce readings '{"cpu": 91.5}' --key web-1 --header source=hand
      tail -f access.log | streamcore produce access
      streamcore produce users --file users.txt --key-separator :
      streamcore consume old --format json | streamcore produce new --format json --data other-data

    With --format json, `value` may be text, any JSON, {"base64": "…"} for bytes, or null for a tombstone.
    """
    if value is not None and file is not None:
        raise click.UsageError("VALUE and --file both say what to write: give one of them.")
    if key is not None and key_separator is not None:
        raise click.UsageError("--key and --key-separator both say what the key is: give one of them.")
    if key_separator == "":
        raise click.UsageError("--key-separator is empty: give the text between key and value, e.g. ':'.")
    if tombstone and (key is None or value is not None):
        raise click.UsageError("--tombstone deletes a key: give --key and no VALUE.")
    info = await session.topic(topic)
    if partition is not None:
        await session.partitions(topic, [partition])
    own_headers = _parse_headers(headers)
    writer = Writer(session, info, partition, acks, compression)
    key_bytes = None if key is None else os.fsencode(key)

    if form == "json":

        def parse(line: bytes) -> Parsed:
            return _from_json(line, key_bytes, own_headers, timestamp)

    else:
        separator = None if key_separator is None else os.fsencode(key_separator)

        def parse(line: bytes) -> Parsed:
            return _from_line(line, key_bytes, separator, own_headers, timestamp)

    if tombstone:
        await writer.write([((key_bytes, None, _now_ms() if timestamp is None else timestamp, own_headers), None)])
    elif value is not None:
        await writer.write([parse(os.fsencode(value))])
    elif file is not None:
        await _write_file(file, parse, writer)
    else:
        stdin = sys.stdin.buffer
        if stdin.isatty():
            note(f"Type one record per line for '{topic}'; Ctrl-D ends.")
        await _write_lines(stdin, parse, writer)
    writer.report()


class Writer:
    """Sends parsed records to their partitions and counts what the log acknowledged."""

    def __init__(
        self, session: Session, topic: "TopicInfo", partition: int | None, acks: str, compression: str
    ) -> None:
        from streamcore.records.partitioner import StickyPartitioner
        from streamcore.transport.base import Acks

        self._session = session
        self._topic = topic
        self._partition = partition
        names = {"none": Acks.NONE, "0": Acks.NONE, "leader": Acks.LEADER, "1": Acks.LEADER}
        self._acks = names.get(acks, Acks.ALL)
        self._compression = compression
        self._sticky = StickyPartitioner(topic.partitions)
        self.written = 0
        self._offsets: dict[TP, tuple[int, int]] = {}  # first and last offset of this run

    async def write(self, records: list[Parsed]) -> None:
        batches: dict[TP, list[OutRecord]] = {}
        for record, partition in records:
            batches.setdefault(TP(self._topic.name, self._partition_of(record, partition)), []).append(record)
        results = await self._session.transport.produce(batches, acks=self._acks, compression=self._compression)
        failed: StreamcoreError | None = None
        for tp, result in results.items():
            if isinstance(result, StreamcoreError):
                failed = failed or result
                continue
            self.written += len(batches[tp])
            first = self._offsets.get(tp, (result, 0))[0]
            self._offsets[tp] = (first, result + len(batches[tp]) - 1)
        if failed is not None:
            if self.written:
                note(f"{plural(self.written, 'record')} before this error were written.")
            raise failed

    def _partition_of(self, record: OutRecord, named: int | None) -> int:
        from streamcore.records.partitioner import partition_for

        partition = self._partition if named is None else named
        if partition is None:
            key = record[0]
            if key is None:
                return self._sticky.partition(len(record[1] or b""))
            return partition_for(key, self._topic.partitions)
        if not 0 <= partition < self._topic.partitions:
            raise CommandError(
                f"Topic '{self._topic.name}' has no partition {partition}:"
                f" they are numbered 0 to {self._topic.partitions - 1}."
            )
        return partition

    def report(self) -> None:
        """Say what was written, and where it is."""
        if self._session.json:
            partitions = [
                {"partition": tp.partition, "first_offset": first, "last_offset": last}
                for tp, (first, last) in sorted(self._offsets.items())
            ]
            print_json({"topic": self._topic.name, "records": self.written, "partitions": partitions})
            return
        if not self._offsets:
            click.echo(f"Nothing was written to {self._topic.name}: there was no record to read.")
            return
        # Without acks there are no offsets to tell.
        parts = [
            f"{tp.partition} at {first}" if first == last else f"{tp.partition} at {first} to {last}"
            for tp, (first, last) in sorted(self._offsets.items())
            if first >= 0
        ]
        where = f": partition{'s' if len(parts) > 1 else ''} {', '.join(parts)}" if parts else ""
        click.echo(f"Wrote {plural(self.written, 'record')} to {self._topic.name}{where}.")


async def _write_file(file: IO[bytes], parse: Callable[[bytes], Parsed], writer: Writer) -> None:
    try:
        total = os.fstat(file.fileno()).st_size
    except (OSError, ValueError):  # not a regular file
        total = 0
    with progress_bar(f"writing {writer.written or ''}".strip(), total, unit="bytes") as progress:
        done = 0
        async for number, lines in _lines(file):
            await writer.write(_parse_all(lines, number, parse, writer))
            done += sum(map(len, lines)) + len(lines)
            progress(done)


async def _write_lines(stream: IO[bytes], parse: Callable[[bytes], Parsed], writer: Writer) -> None:
    async for number, lines in _lines(stream):
        await writer.write(_parse_all(lines, number, parse, writer))


def _parse_all(lines: list[bytes], number: int, parse: Callable[[bytes], Parsed], writer: Writer) -> list[Parsed]:
    """The records of some lines, of which the first is line `number` of the input."""
    parsed = []
    for i, line in enumerate(lines):
        try:
            parsed.append(parse(line))
        except ValueError as error:
            preview = line[:PREVIEW_CHARACTERS].decode("utf-8", "backslashreplace")
            before = f" The {plural(writer.written, 'record')} before were written." if writer.written else ""
            raise CommandError(f"Line {number + i} {error}: {preview!r}.{before}") from None
    return parsed


async def _lines(stream: IO[bytes]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """The lines of a stream as they come, several at once where several are there: (number of the first, lines)."""
    number = 1
    rest = b""
    while chunk := await _read(stream):
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield number, [line.removesuffix(b"\r") for line in lines]
            number += len(lines)
    if rest:
        yield number, [rest]


async def _read(stream: IO[bytes]) -> bytes:
    """What is there to read, at once when it is there; b"" at the end."""
    try:
        fd = stream.fileno()
    except (OSError, ValueError):  # a stream that lives in memory
        return stream.read(READ_BYTES)
    # Waiting in the loop and not in a thread: Ctrl-C must not wait for the next line.
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(fd, readable.set)
    except PermissionError:  # a regular file, which is always readable
        return os.read(fd, READ_BYTES)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(fd)
    return os.read(fd, READ_BYTES)


def _from_line(
    line: bytes, key: bytes | None, separator: bytes | None, headers: Headers, timestamp: int | None
) -> Parsed:
    if separator is not None:
        key, found, line = line.partition(separator)
        if not found:
            raise ValueError(f"has no {separator.decode('utf-8', 'backslashreplace')!r} between key and value")
    return (key, line, _now_ms() if timestamp is None else timestamp, headers), None


def _from_json(line: bytes, key: bytes | None, headers: Headers, timestamp: int | None) -> Parsed:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(fields, dict) or "value" not in fields:
        raise ValueError(
            'is not an object with "value" and, where you like, "key", "headers", "timestamp", "partition"'
        )
    partition = fields.get("partition")
    if partition is not None and (isinstance(partition, bool) or not isinstance(partition, int)):
        raise ValueError('has a "partition" that is no whole number')
    own_timestamp = fields.get("timestamp")
    if own_timestamp is not None and (isinstance(own_timestamp, bool) or not isinstance(own_timestamp, int)):
        raise ValueError('has a "timestamp" that is not in whole milliseconds')
    when = next((ms for ms in (timestamp, own_timestamp) if ms is not None), None)
    own_headers = fields.get("headers") or {}
    pairs = own_headers.items() if isinstance(own_headers, dict) else own_headers
    try:
        told = [(str(name), _to_bytes(value) or b"") for name, value in pairs]
    except (TypeError, ValueError):
        raise ValueError('has "headers" that are neither an object nor a list of pairs') from None
    record_key = _to_bytes(fields["key"]) if "key" in fields else key
    return (record_key, _to_bytes(fields["value"]), _now_ms() if when is None else when, told + headers), partition


def _to_bytes(value: Any) -> bytes | None:
    """The bytes that a JSON value stands for; the inverse of `output.json_value`."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except ValueError:
            raise ValueError('has a "base64" that is no base64') from None
    return orjson.dumps(value)


def _parse_headers(pairs: tuple[str, ...]) -> Headers:
    headers = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--header takes NAME=VALUE, e.g. source=hand, not '{pair}'.")
        headers.append((name, os.fsencode(value)))
    return headers


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
