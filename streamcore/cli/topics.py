"""`streamcore topics`: list, create, describe, alter and delete topics."""

from typing import TYPE_CHECKING, Any

import click

from streamcore.cli.commands import Commands
from streamcore.cli.output import note, plural, print_json, print_table, show_size
from streamcore.cli.positions import DurationType
from streamcore.cli.problems import CommandError
from streamcore.cli.session import Session, with_session
from streamcore.errors import TopicExistsError

if TYPE_CHECKING:
    from streamcore.transport.base import PartitionInfo, TopicInfo


@click.group("topics", cls=Commands, short_help="List, create, describe, alter, delete topics.")
def topics() -> None:
    """List, create, describe, alter and delete topics.

    \b
    Examples:
      streamcore topics list
      streamcore topics create clicks --partitions 4 --retention 7d
      streamcore topics describe clicks
      streamcore topics alter clicks --config retention.ms=3600000
      streamcore topics delete clicks
    """


@topics.command("list")
@click.option("--internal", is_flag=True, help="Also the topics streamcore keeps for itself.")
@with_session()
async def list_topics(session: Session, internal: bool) -> None:
    """All topics, with what is in them."""
    known = await session.transport.topics()
    partitions = await _partitions_by_topic(session)
    shown = [topic for name, topic in sorted(known.items()) if internal or not topic.internal]
    if session.json:
        print_json([_as_json(topic, partitions.get(topic.name, [])) for topic in shown])
        return
    if not shown:
        note("No topics yet. 'streamcore topics create NAME' makes one.")
        return
    rows = []
    for topic in shown:
        infos = partitions.get(topic.name, [])
        offline = sum(info.offline is not None for info in infos)
        records = sum(info.log_end_offset - info.log_start_offset for info in infos)
        size = show_size(sum(info.size_bytes for info in infos))
        state = f"{offline} offline" if offline else ""
        rows.append((topic.name, topic.partitions, f"{records:,}", size, _show_config(topic), state))
    columns = ["topic", "partitions", "records", "size", "config"] + (["state"] if any(row[-1] for row in rows) else [])
    print_table(columns, [row[: len(columns)] for row in rows], right=("partitions", "records", "size"))


@topics.command("describe")
@click.argument("names", metavar="TOPIC...", nargs=-1, required=True)
@with_session()
async def describe(session: Session, names: tuple[str, ...]) -> None:
    """Partitions, offsets, sizes and settings of topics."""
    infos = [await session.topic(name) for name in names]
    partitions = await _partitions_by_topic(session)
    if session.json:
        print_json([_as_json(topic, partitions.get(topic.name, [])) for topic in infos])
        return
    for i, topic in enumerate(infos):
        if i:
            click.echo()
        kind = " (internal)" if topic.internal else ""
        click.echo(f"{topic.name}{kind}: {plural(topic.partitions, 'partition')}")
        for name, value in sorted(topic.config.items()):
            click.echo(f"  {name}={value}")
        rows = [
            (
                info.tp.partition,
                info.log_start_offset,
                info.log_end_offset,
                f"{info.log_end_offset - info.log_start_offset:,}",
                show_size(info.size_bytes),
                f"offline: {info.offline}" if info.offline else "online",
            )
            for info in partitions.get(topic.name, [])
        ]
        columns = ["partition", "start", "end", "records", "size", "state"]
        print_table(columns, rows, right=columns[:-1])


@topics.command("create")
@click.argument("name", metavar="TOPIC")
@click.option("--partitions", "-p", type=click.IntRange(min=1), default=8, show_default=True, help="How many.")
@click.option(
    "--config", "-c", "configs", metavar="NAME=VALUE", multiple=True, help="A topic setting; may be repeated."
)
@click.option("--retention", type=DurationType(), help="Keep records this long, e.g. 7d  (retention.ms).")
@click.option("--compact", is_flag=True, help="Keep the newest record of each key  (cleanup.policy=compact).")
@click.option("--if-not-exists", is_flag=True, help="Be content when the topic is there already.")
@with_session(creates=True)
async def create(
    session: Session,
    name: str,
    partitions: int,
    configs: tuple[str, ...],
    retention: int | None,
    compact: bool,
    if_not_exists: bool,
) -> None:
    """Make a topic.

    Settings have Kafka's names: retention.ms, retention.bytes, segment.bytes, cleanup.policy, max.message.bytes,
    compression.type, message.timestamp.type, flush.messages and so on.

    \b
    Examples:
      streamcore topics create clicks --partitions 4 --retention 7d
      streamcore topics create last-seen --compact
      streamcore topics create big -c max.message.bytes=10485760 -c segment.bytes=268435456
    """
    config = _parse_config(configs)
    if retention is not None:
        config["retention.ms"] = str(retention)
    if compact:
        config["cleanup.policy"] = "compact"
    try:
        topic = await session.transport.create_topic(name, partitions=partitions, config=config)
    except TopicExistsError:
        if not if_not_exists:
            raise CommandError(
                f"Topic '{name}' is there already: 'streamcore topics describe {name}' shows it,"
                " --if-not-exists makes this no error."
            ) from None
        topic = (await session.transport.topics())[name]
    if session.json:
        print_json({"name": topic.name, "partitions": topic.partitions, "config": dict(topic.config)})
    else:
        click.echo(f"Topic '{topic.name}' has {plural(topic.partitions, 'partition')}.")


@topics.command("alter")
@click.argument("name", metavar="TOPIC")
@click.option("--config", "-c", "configs", metavar="NAME=VALUE", multiple=True, help="Set this; may be repeated.")
@click.option("--delete-config", "removed", metavar="NAME", multiple=True, help="Back to its default; may be repeated.")
@click.option("--partitions", "-p", type=click.IntRange(min=1), help="Grow to this many partitions.")
@with_session()
async def alter(
    session: Session, name: str, configs: tuple[str, ...], removed: tuple[str, ...], partitions: int | None
) -> None:
    """Change a topic's settings, or give it more partitions.

    More partitions send most keys to other partitions than before, so joins and tables over old records no longer
    find them: make a new topic where that matters.

    \b
    Examples:
      streamcore topics alter clicks --config retention.ms=3600000
      streamcore topics alter clicks --delete-config retention.ms
      streamcore topics alter clicks --partitions 16
    """
    changes: dict[str, str | None] = {**_parse_config(configs), **dict.fromkeys(removed)}
    if not changes and partitions is None:
        raise click.UsageError("Nothing to change: give --config, --delete-config or --partitions.")
    topic = await session.topic(name)
    if partitions is not None and partitions < topic.partitions:
        raise CommandError(
            f"Topic '{name}' has {plural(topic.partitions, 'partition')} and cannot shrink to {partitions}:"
            " make a new topic and copy the records."
        )
    if changes:
        await session.transport.alter_config(name, changes)
    if partitions is not None and partitions > topic.partitions:
        await session.transport.add_partitions(name, partitions)
    topic = await session.topic(name)
    if session.json:
        print_json({"name": topic.name, "partitions": topic.partitions, "config": dict(topic.config)})
    else:
        config = _show_config(topic)
        click.echo(f"Topic '{name}' has {plural(topic.partitions, 'partition')}{f' and {config}' if config else ''}.")


@topics.command("delete")
@click.argument("names", metavar="TOPIC...", nargs=-1, required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@with_session()
async def delete(session: Session, names: tuple[str, ...], yes: bool) -> None:
    """Delete topics with all their records; there is no way back."""
    for name in names:
        await session.topic(name)
    if not yes:
        partitions = await _partitions_by_topic(session)
        infos = [info for name in names for info in partitions.get(name, [])]
        records = sum(info.log_end_offset - info.log_start_offset for info in infos)
        confirm(f"Delete {', '.join(names)} with {plural(records, 'record')}?")
    for name in names:
        await session.transport.delete_topic(name)
    if session.json:
        print_json({"deleted": list(names)})
    else:
        click.echo(f"Deleted {', '.join(names)}.")


def confirm(question: str) -> None:
    """Ask the person at the terminal; where nobody sits there, `--yes` must have been given."""
    import sys

    if not sys.stdin.isatty():
        raise click.UsageError("Nobody is here to confirm that: add --yes.")
    click.confirm(question, abort=True, err=True)


def _parse_config(pairs: tuple[str, ...]) -> dict[str, str]:
    config = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(f"--config takes NAME=VALUE, e.g. retention.ms=3600000, not '{pair}'.")
        config[name.strip()] = value.strip()
    return config


def _show_config(topic: "TopicInfo") -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(topic.config.items()))


async def _partitions_by_topic(session: Session) -> dict[str, list["PartitionInfo"]]:
    by_topic: dict[str, list[PartitionInfo]] = {}
    for info in sorted(await session.transport.describe_partitions(), key=lambda info: info.tp):
        by_topic.setdefault(info.tp.topic, []).append(info)
    return by_topic


def _as_json(topic: "TopicInfo", partitions: list["PartitionInfo"]) -> dict[str, Any]:
    return {
        "name": topic.name,
        "internal": topic.internal,
        "config": dict(topic.config),
        "records": sum(info.log_end_offset - info.log_start_offset for info in partitions),
        "size_bytes": sum(info.size_bytes for info in partitions),
        "partitions": [
            {
                "partition": info.tp.partition,
                "log_start_offset": info.log_start_offset,
                "log_end_offset": info.log_end_offset,
                "size_bytes": info.size_bytes,
                "offline": info.offline,
            }
            for info in partitions
        ],
    }
