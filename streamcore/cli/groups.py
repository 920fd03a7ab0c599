"""`streamcore groups`: how far each group has read, and how to send it elsewhere."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from streamcore.cli.commands import Commands
from streamcore.cli.output import iso_time, note, plural, print_json, print_table, show_duration, show_time
from streamcore.cli.positions import Position, PositionType, resolve
from streamcore.cli.problems import CommandError, NotFoundError
from streamcore.cli.session import Session, with_session
from streamcore.cli.topics import confirm
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.transport.administration import GroupInfo
    from streamcore.transport.base import Committed, PartitionInfo


@click.group("groups", cls=Commands, short_help="List, describe, reset, delete consumer groups.")
def groups() -> None:
    """List, describe, reset and delete consumer groups.

    A group is a name under which an app (or 'consume --group') keeps how far it has read.

    \b
    Examples:
      streamcore groups list
      streamcore groups describe health-monitoring
      streamcore groups reset health-monitoring --to beginning --topic syslog
      streamcore groups reset health-monitoring --to 1h --topic syslog:0,3 --yes
    """


@groups.command("list")
@with_session()
async def list_groups(session: Session) -> None:
    """All groups, with how far they are behind."""
    names = await session.transport.groups()
    ends = await _ends(session)
    rows = []
    for name in names:
        committed = await _consumed(session, name)
        lag = sum(max(0, ends.get(tp, at.offset) - at.offset) for tp, at in committed.items())
        newest = max((at.timestamp_ms for at in committed.values()), default=-1)
        rows.append((name, sorted({tp.topic for tp in committed}), len(committed), lag, newest))
    if session.json:
        print_json(
            [
                {"group": name, "topics": topics, "partitions": count, "lag": lag, "committed": iso_time(newest)}
                for name, topics, count, lag, newest in rows
            ]
        )
        return
    if not rows:
        note("No groups yet: an app has one from its first commit on, and 'consume --group NAME' makes one.")
        return
    print_table(
        ["group", "topics", "partitions", "lag", "last commit"],
        [(name, ", ".join(topics), n, f"{lag:,}", show_time(newest)) for name, topics, n, lag, newest in rows],
        right=("partitions", "lag"),
    )


@groups.command("describe")
@click.argument("name", metavar="GROUP")
@with_session()
async def describe(session: Session, name: str) -> None:
    """Committed offset of a group in each partition, its lag in records and in time, and who reads.

    LATE is the age of the oldest record that is not consumed, by its timestamp.
    """
    await _check_group(session, name)
    places = {info.tp: info for info in await session.transport.describe_partitions()}
    ends = {tp: info.log_end_offset for tp, info in places.items()}
    committed = sorted((await _consumed(session, name)).items())
    late = await _late(session, places, committed)
    info = await _group_info(session, name)
    readers = {tp: member for member in info.members for tp in member.assigned} if info is not None else {}
    if session.json:
        partitions: list[dict[str, Any]] = [
            {
                "topic": tp.topic,
                "partition": tp.partition,
                "committed_offset": at.offset,
                "log_end_offset": ends.get(tp),
                "lag": max(0, ends[tp] - at.offset) if tp in ends else None,
                "lag_ms": late.get(tp),
                "committed": iso_time(at.timestamp_ms),
                "metadata": at.metadata,
                "member_id": readers[tp].member_id if tp in readers else None,
            }
            for tp, at in committed
        ]
        print_json({"group": name, **_group_json(info), "partitions": partitions})
        return
    if info is not None:
        assignor = f", assignor {info.assignor}" if info.assignor else ""
        epoch = f", epoch {info.epoch}" if info.epoch is not None else ""
        node = f", coordinator node {info.listed.coordinator}"
        click.echo(
            f"{info.listed.state or 'Unknown state'}{assignor}{epoch}{node}, {plural(len(info.members), 'member')}"
        )
    rows = [
        (
            tp.topic,
            tp.partition,
            at.offset,
            ends.get(tp, "-"),
            f"{max(0, ends[tp] - at.offset):,}" if tp in ends else "-",
            show_duration(age_ms) if (age_ms := late.get(tp)) else "-",
            show_time(at.timestamp_ms),
        )
        for tp, at in committed
    ]
    columns = ["topic", "partition", "committed", "end", "lag", "late", "at"]
    print_table(columns, rows, right=("partition", "committed", "end", "lag", "late"))
    if info is not None and info.members:
        _print_members(info)


def _print_members(info: "GroupInfo") -> None:
    rows = [
        (
            member.client_id,
            member.host,
            member.instance_id or "-",
            member.member_id,
            *(() if info.epoch is None else (member.epoch,)),
            ", ".join(map(str, member.assigned)) or "-",
        )
        for member in info.members
    ]
    epoch = [] if info.epoch is None else ["epoch"]
    print_table(["client", "host", "instance", "member", *epoch, "assigned"], rows, right=epoch)


async def _late(
    session: Session, places: Mapping[TP, "PartitionInfo"], committed: Sequence[tuple[TP, "Committed"]]
) -> dict[TP, int | None]:
    """How late the group is, in ms, where that can be told."""
    from streamcore.clock import SYSTEM_CLOCK
    from streamcore.transport.lag_times import LagTimes

    known = [(tp, at) for tp, at in committed if tp in places]
    positions = {tp: max(at.offset, places[tp].log_start_offset) for tp, at in known}
    ends = {tp: places[tp].log_end_offset for tp, _ in known}
    return await LagTimes(session.transport).of(positions, ends, SYSTEM_CLOCK.now_ms())


async def _group_info(session: Session, name: str) -> "GroupInfo | None":
    """What the coordinator tells; None where the log has none, because this very process has it open."""
    administration = session.transport.administration()
    if administration is None:
        return None
    cluster = await administration.cluster()
    groups = await administration.groups(node.node_id for node in cluster.nodes if node.problem is None)
    listed = [group for group in groups if group.group == name]
    return (await administration.describe_groups(listed))[0] if listed else None


def _group_json(info: "GroupInfo | None") -> dict[str, Any]:
    if info is None:
        return {
            "state": None, "type": None, "assignor": None, "epoch": None, "coordinator": None, "members": None,
        }  # fmt: skip
    members = [
        {
            "member_id": member.member_id,
            "instance_id": member.instance_id,
            "client_id": member.client_id,
            "host": member.host,
            "epoch": member.epoch,
            "topic_regex": member.topic_regex,
            "assigned": _places(member.assigned),
            "target": _places(member.target) if member.target is not None else None,
        }
        for member in info.members
    ]
    listed = info.listed
    return {
        "state": listed.state,
        "type": listed.type,
        "assignor": info.assignor or None,
        "epoch": info.epoch,
        "coordinator": listed.coordinator,
        "members": members,
    }


def _places(tps: Sequence[TP]) -> list[dict[str, Any]]:
    return [{"topic": tp.topic, "partition": tp.partition} for tp in tps]


@groups.command("reset")
@click.argument("name", metavar="GROUP")
@click.option("--to", "position", type=PositionType(), required=True, help="Where it goes on reading.")
@click.option(
    "--topic", "-t", "topics", metavar="TOPIC[:P,P]", multiple=True, help="Only these (partitions); may be repeated."
)
@click.option("--new", is_flag=True, help="Make the group when there is none.  Needs --topic.")
@click.option("--dry-run", is_flag=True, help="Only show what would change; this is the default without --yes.")
@click.option("--yes", "-y", is_flag=True, help="Do it.")
@with_session()
async def reset(
    session: Session, name: str, position: Position, topics: tuple[str, ...], new: bool, dry_run: bool, yes: bool
) -> None:
    """Send a group to another place, to read again or to skip. Shows the change; --yes makes it.

    WHERE is beginning, end, offset:42, -10 (before the end), a time such as 2026-01-31T12:00, or 1h (ago), as
    for 'streamcore consume'. Offsets outside the log become its nearest end.

    An app keeps input offsets beside its tables as well, and those win, because its tables hold what was read up to
    there: to read again with tables, reset the app under a new id.

    \b
    Examples:
      streamcore groups reset mine --to beginning
      streamcore groups reset mine --to 2026-01-31T12:00 --topic clicks --yes
      streamcore groups reset mine --to offset:1200 --topic clicks:3 --yes
    """
    if yes and dry_run:
        raise click.UsageError("--yes and --dry-run contradict each other: give one of them.")
    if new and not topics:
        raise click.UsageError("--new needs --topic: a group without a commit has no topics of its own.")
    if not new:
        await _check_group(session, name)
    committed = await _consumed(session, name)
    tps: list[TP] = []
    for text in topics:
        tps += await _parse_topic(session, text)
    if not topics:
        tps = sorted(committed)
    wanted, starts, ends = await resolve(session.transport, position, tps)
    if yes:
        from streamcore.transport.base import Committed

        await session.transport.commit(name, {tp: Committed(offset) for tp, offset in wanted.items()})
    old = {tp: committed[tp].offset if tp in committed else None for tp in wanted}
    if session.json:
        partitions = [
            {
                "topic": tp.topic,
                "partition": tp.partition,
                "old_offset": old[tp],
                "new_offset": offset,
                "log_start_offset": starts[tp],
                "log_end_offset": ends[tp],
            }
            for tp, offset in sorted(wanted.items())
        ]
        print_json({"group": name, "applied": yes, "partitions": partitions})
        return
    rows = [
        (tp.topic, tp.partition, "-" if old[tp] is None else old[tp], offset, f"{ends[tp] - offset:,}")
        for tp, offset in sorted(wanted.items())
    ]
    print_table(["topic", "partition", "old", "new", "lag"], rows, right=("partition", "old", "new", "lag"))
    changed = sum(old[tp] != offset for tp, offset in wanted.items())
    if yes:
        click.echo(f"Group '{name}' is reset in {plural(changed, 'partition')}.")
    elif changed:
        click.echo(f"Nothing is changed yet: add --yes to reset {plural(changed, 'partition')} of group '{name}'.")
    else:
        click.echo(f"Group '{name}' is there already.")


@groups.command("delete")
@click.argument("name", metavar="GROUP")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@with_session()
async def delete(session: Session, name: str, yes: bool) -> None:
    """Forget every offset a group has committed."""
    await _check_group(session, name)
    if not yes:
        confirm(f"Forget the committed offsets of group '{name}'?")
    await session.transport.delete_group(name)
    if session.json:
        print_json({"deleted": [name]})
    else:
        click.echo(f"Deleted group '{name}'.")


async def _check_group(session: Session, name: str) -> None:
    names = await session.transport.groups()
    if name not in names:
        raise NotFoundError("group", name, names, "'streamcore groups list' shows the ones there are.")


async def _consumed(session: Session, group: str) -> "dict[TP, Committed]":
    """What the group has read; the ends of an app's own changelogs are left out."""
    from streamcore.transport.base import consumed

    return consumed(await session.transport.committed(group))


async def _ends(session: Session) -> dict[TP, int]:
    """The log end of every partition, offline ones included."""
    return {info.tp: info.log_end_offset for info in await session.transport.describe_partitions()}


async def _parse_topic(session: Session, text: str) -> list[TP]:
    """The partitions that `topic` or `topic:0,3` names."""
    name, _, numbers = text.partition(":")
    try:
        only = [int(number) for number in numbers.split(",") if number.strip()]
    except ValueError:
        raise CommandError(f"--topic takes TOPIC or TOPIC:0,3, not '{text}'.") from None
    return await session.partitions(name, only)
