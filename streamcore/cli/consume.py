"""`streamcore consume`: read a topic, from anywhere to anywhere."""

import asyncio
import os
import sys
import time
from typing import IO

import click

from streamcore.cli.commands import Command
from streamcore.cli.output import note, plural, progress_bar, stdout_is_file
from streamcore.cli.positions import Position, PositionType, resolve
from streamcore.cli.reading import Range, read
from streamcore.cli.record_formats import Formatter, formatter_for
from streamcore.cli.session import Session, with_session
from streamcore.types import TP, InRecord


@click.command("consume", cls=Command)
@click.argument("topic")
@click.option(
    "--from", "-o", "begin", type=PositionType(), help="Begin there.  [default: beginning; end with --follow]"
)
@click.option("--until", "-u", type=PositionType(), help="Stop before it.  [default: end; never with --follow]")
@click.option("--follow", "-f", is_flag=True, help="Wait for more records; Ctrl-C ends.")
@click.option("--max", "-n", "limit", type=click.IntRange(min=0), metavar="N", help="Stop after N records.")
@click.option("--partition", "-p", "only", type=int, multiple=True, metavar="P", help="Only these; may be repeated.")
@click.option("--group", "-g", metavar="NAME", help="Go on where this group stopped, and commit what was read.")
@click.option(
    "--format",
    "form",
    default="text",
    show_default=True,
    metavar="FORMAT",
    help="text, json (a record per line), raw (values only) or a template such as '{key}: {value[cpu]}'.",
)
def consume(
    topic: str,
    begin: Position | None,
    until: Position | None,
    follow: bool,
    limit: int | None,
    only: tuple[int, ...],
    group: str | None,
    form: str,
) -> None:
    """Read the records of a topic.

    \b
    WHERE is one of
      beginning, end       of what is in the log
      offset:42            in each partition
      -10                  the last ten of each partition
      10m, "2 hours ago"   that long ago
      2026-01-31T12:00, 12:00, yesterday, @1700000000000 (Unix time, s or ms)

    \b
    Examples:
      streamcore consume syslog                                  everything, then stop
      streamcore consume syslog --from 10m --follow              the last ten minutes, then as it comes
      streamcore consume syslog --from -5 --partition 3          the last five of partition 3
      streamcore consume metrics --format '{time} {key} {value[cpu]:.1f}'
      streamcore consume metrics --format json | jq .value
      streamcore consume clicks --group mine --max 100           the next hundred for the group 'mine'

    Text lines are: partition:offset, local time, key, value, headers. Bytes that are no text are escaped there;
    json has them as {"base64": …}. A group's committed offsets come before --from.
    """
    try:
        _consume(topic, begin, until, follow, limit, only, group, form)
    except KeyboardInterrupt:
        # Ctrl-C is how following ends, so it is no failure there.
        if not follow:
            raise


@with_session()
async def _consume(
    session: Session,
    topic: str,
    begin: Position | None,
    until: Position | None,
    follow: bool,
    limit: int | None,
    only: tuple[int, ...],
    group: str | None,
    form: str,
) -> None:
    out = sys.stdout.buffer
    colourful = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    formatter = formatter_for("json" if session.json and form == "text" else form, terminal=colourful)
    tps = await session.partitions(topic, only)
    start = begin or Position("end" if follow else "beginning")
    positions, starts, ends = await resolve(session.transport, start, tps)
    if group is not None:
        committed = await session.transport.committed(group, tps)
        positions.update({tp: min(max(at.offset, starts[tp]), ends[tp]) for tp, at in committed.items()})
    stops = dict(ends)
    if until is not None:
        stops = (await resolve(session.transport, until, tps))[0]
        if until.kind == "offset" and follow:
            stops = dict.fromkeys(tps, until.value)  # also beyond today's end
    elif follow:
        stops = {}
    until_ms = until.value if until is not None and until.kind == "time" and follow else None
    span = Range(positions, {} if until_ms is not None else stops)
    reader = Reader(session, span, formatter, out, limit, group, until_ms)
    if follow and sys.stderr.isatty() and positions == ends:
        note(f"Waiting for new records in '{topic}' ({plural(len(tps), 'partition')}); Ctrl-C ends.")
    await reader.run()
    if not follow and not reader.written and sys.stderr.isatty():
        there = sum(ends[tp] - starts[tp] for tp in tps)
        beside = f", only {plural(there, 'record')} outside it" if there else ""
        note(f"Nothing in that range of '{topic}'{beside}.")


class Reader:
    """Reads a range, writes it out, and commits what was written."""

    def __init__(
        self,
        session: Session,
        span: Range,
        formatter: Formatter,
        out: IO[bytes],
        limit: int | None,
        group: str | None,
        until_ms: int | None,
    ) -> None:
        self._session = session
        self._span = span
        self._formatter = formatter
        self._out = out
        self._limit = limit
        self._group = group
        self._until_ms = until_ms
        self.written = 0

    async def run(self) -> None:
        if self._limit == 0:
            return
        deadline = None
        if self._until_ms is not None:
            # Records carry other clocks than ours: the end is the first of a later record and our own clock.
            deadline = asyncio.get_running_loop().time() + max(0.0, self._until_ms / 1000 - time.time())
        try:
            async with asyncio.timeout_at(deadline):
                await self._read()
        except TimeoutError:
            if deadline is None or asyncio.get_running_loop().time() < deadline:
                raise
        finally:
            await self._commit()

    async def _read(self) -> None:
        span = self._span
        with progress_bar("reading", span.total, shown=stdout_is_file()) as progress:
            async for tp, records in read(self._session.transport, span):
                kept = self._keep(tp, records)
                self._out.write(b"".join([self._formatter(tp, record) for record in kept]))
                self._out.flush()
                self.written += len(kept)
                if kept:
                    span.positions[tp] = kept[-1].offset + 1
                await self._commit()
                progress(span.done)
                if self.written == self._limit:
                    return

    def _keep(self, tp: TP, records: list[InRecord]) -> list[InRecord]:
        """The records before the limit and before the time to stop at."""
        if self._until_ms is not None:
            for i, record in enumerate(records):
                if record.timestamp >= self._until_ms:
                    self._span.stop_at(tp, record.offset)
                    records = records[:i]
                    break
        return records if self._limit is None else records[: self._limit - self.written]

    async def _commit(self) -> None:
        if self._group is None:
            return
        from streamcore.transport.base import Committed

        offsets = {tp: Committed(offset) for tp, offset in self._span.positions.items()}
        await self._session.transport.commit(self._group, offsets)
