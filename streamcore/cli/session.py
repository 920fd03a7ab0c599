"""A command's connection to the log: opened, used by one coroutine, closed in order."""

import asyncio
import functools
import signal
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import click

from streamcore.cli.problems import CommandError, ExitCode, NotFoundError
from streamcore.cli.settings import DATA_DEFAULT, Settings
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.transport.base import TopicInfo, Transport

P = ParamSpec("P")


class Session:
    """What a command works with: the settings and a started transport."""

    def __init__(self, settings: Settings, transport: "Transport") -> None:
        self.settings = settings
        self.transport = transport

    @property
    def json(self) -> bool:
        return self.settings.json

    async def topic(self, name: str) -> "TopicInfo":
        """The topic of that name; an error names the nearest one."""
        topics = await self.transport.topics()
        if name not in topics:
            visible = [topic.name for topic in topics.values() if not topic.internal]
            remedy = f"Create it with: streamcore topics create {name}"
            if visible:
                remedy = (
                    f"'streamcore topics list' shows the {len(visible)} there are; to make it: topics create {name}"
                )
            raise NotFoundError("topic", name, visible or topics, remedy)
        return topics[name]

    async def partitions(self, name: str, only: Iterable[int] = ()) -> list[TP]:
        """The partitions of a topic, all of them or the ones in `only`."""
        topic = await self.topic(name)
        wanted = sorted(set(only)) or range(topic.partitions)
        for partition in wanted:
            if not 0 <= partition < topic.partitions:
                last = topic.partitions - 1
                raise CommandError(f"Topic '{name}' has no partition {partition}: they are numbered 0 to {last}.")
        return [TP(name, partition) for partition in wanted]


def with_session(
    *, creates: bool = False
) -> Callable[[Callable[Concatenate[Session, P], Awaitable[None]]], Callable[P, None]]:
    """Makes a click callback of a coroutine function that takes a `Session` first.

    Args:
        creates: the command may create the data directory; others say that there is none.
    """

    def decorate(function: Callable[Concatenate[Session, P], Awaitable[None]]) -> Callable[P, None]:
        @functools.wraps(function)
        def callback(*args: P.args, **kwargs: P.kwargs) -> None:
            settings = click.get_current_context().ensure_object(Settings)
            url, client = settings.url(), settings.client()
            if not creates:
                _check_directory(url)

            async def run() -> None:
                from streamcore.transport import connect

                transport = connect(url, client=client)
                _cancel_on_sigterm()
                await transport.start()
                try:
                    await function(Session(settings, transport), *args, **kwargs)
                finally:
                    await transport.stop()

            try:
                asyncio.run(run())
            except asyncio.CancelledError:
                raise click.exceptions.Exit(ExitCode.TERMINATED) from None

        return callback

    return decorate


def _cancel_on_sigterm() -> None:
    """SIGTERM ends a command as Ctrl-C does: in order, so that the log needs no recovery."""
    task = asyncio.current_task()
    assert task is not None
    try:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or no such signals here
        pass


def _check_directory(url: str) -> None:
    """A directory that is only looked at must be there: a typo in its name must not create it."""
    scheme, _, path = url.partition(":")
    path = path.removeprefix("//")
    if scheme == "memory":
        raise CommandError("A memory: log lives and ends with its process: name a directory with --data DIR.")
    if scheme != "embedded" or Path(path).is_dir():
        return
    if Path(path).exists():
        raise CommandError(f"{path} is not a directory: --data takes the directory that holds the log.")
    if path == DATA_DEFAULT:
        raise CommandError(
            f"There is no ./{DATA_DEFAULT} here: name the data directory with --data DIR,"
            " or begin with 'streamcore topics create NAME' or 'streamcore demo'."
        )
    raise CommandError(
        f"There is no data directory {path}: check --data, or create it with 'streamcore topics create'."
    )
