"""The app: where a user declares topics, tables, agents, timers and pages."""

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from inspect import iscoroutinefunction, isfunction, signature
from typing import Any, overload

from streamcore.agents import Agent, AgentFunction
from streamcore.clock import SYSTEM_CLOCK
from streamcore.config import AppConfig, ErrorPolicy, Seconds, milliseconds
from streamcore.engine.app_tasks import TaskSpec, TimerSpec, Where
from streamcore.engine.worker import Declarations, Service, Worker
from streamcore.errors import UsageError
from streamcore.tables import Table
from streamcore.topics import HeadersArg, SentRecord, Topic

AsyncFunction = Callable[..., Awaitable[Any]]

logger = logging.getLogger(__name__)


def _where(on_leader: bool, per_host: bool) -> Where:
    if on_leader and per_host:
        raise UsageError("on_leader is one worker of all, per_host one on every machine: choose one of them")
    return "leader" if on_leader else "host" if per_host else "worker"


class App:
    """A stream-processing program: declarations, and the worker that runs them.

    Args:
        id: names the consumer group, the changelogs and the state directory; keep it for the life of the program.
        settings: see `AppConfig`; the most used are `broker`, `datadir` and `web_port`.
    Raises:
        UsageError: an unknown setting, or a value out of bounds.
    """

    def __init__(self, id: str, **settings: Any) -> None:
        self._settings = settings
        self._declared = Declarations(AppConfig.of(id, settings))
        self._worker: Worker | None = None

    @property
    def id(self) -> str:
        return self._declared.config.id

    @property
    def conf(self) -> AppConfig:
        """The settings."""
        return self._declared.config

    @property
    def topics(self) -> Mapping[str, Topic]:
        return self._declared.topics

    @property
    def agents(self) -> Mapping[str, Agent]:
        return self._declared.agents

    @property
    def tables(self) -> Mapping[str, Table]:
        return self._declared.tables

    # -- declarations --------------------------------------------------------------------------------------------------

    def topic(self, name: str, **options: Any) -> Topic:
        """Declare a topic; it is created when the worker starts, if the log does not have it. Options: see `Topic`."""
        topic = Topic(name, **options)
        known = self._declared.topics.get(name)
        if known is not None:
            same = (known.key_type, known.value_type) == (topic.key_type, topic.value_type)
            if not same:
                raise UsageError(f"topic {name} is declared twice with different types: keep one declaration")
            return known
        self._declared.topics[name] = topic
        return topic

    def agent(
        self,
        topic: Topic | str | None = None,
        *,
        name: str | None = None,
        sink: Any = (),
        concurrency: int = 1,
        on_error: ErrorPolicy | str | None = None,
        **topic_options: Any,
    ) -> Callable[[AgentFunction], Agent]:
        """Declare an agent: a function over a topic's stream.

        Args:
            topic: a topic, or a topic's name; without one the agent has a topic of its own, `{app}-{agent}`.
            sink: one or several topics, agents or functions that get what the function yields.
            concurrency: instances per partition.
            on_error: "retry", "dead_letter", "skip", "stop" or `retry(…)`; by default the app's.
        """

        if isfunction(topic):
            raise UsageError(f"write @app.agent() or @app.agent(topic), with parentheses, above {topic.__name__}")

        def declare(function: AgentFunction) -> Agent:
            agent_name: str = name or str(getattr(function, "__name__", "agent"))
            if agent_name in self._declared.agents:
                raise UsageError(f"there are two agents named {agent_name}: give one of them name=…")
            source = topic
            if isinstance(source, Topic):
                self._declared.topics.setdefault(source.name, source)
            elif source is not None and not isinstance(source, str):
                raise UsageError(f"agent {agent_name}: a source is a topic or a topic's name, not {source!r}")
            else:
                source = self.topic(source or f"{self.id}-{agent_name}", **topic_options)
            sinks = sink if isinstance(sink, list | tuple | set) else [sink]
            agent = Agent(
                function,
                name=agent_name,
                topic=source,
                sinks=list(sinks),
                concurrency=concurrency,
                on_error=self.conf.on_error if on_error is None else on_error,
            )
            for sink_topic in agent.sinks:
                if isinstance(sink_topic, Topic):
                    self._declared.topics.setdefault(sink_topic.name, sink_topic)
            self._declared.agents[agent_name] = agent
            return agent

        return declare

    def Table(self, name: str, **options: Any) -> Table:
        """Declare a table. Options: see `streamcore.tables.Table`."""
        if name in self._declared.tables:
            raise UsageError(f"table {name} is declared twice: keep one declaration")
        table = Table(name, **options)
        self._declared.tables[name] = table
        return table

    @overload
    def task(self, function: AsyncFunction) -> AsyncFunction: ...
    @overload
    def task(self, *, on_leader: bool = False, per_host: bool = False) -> Callable[[AsyncFunction], AsyncFunction]: ...
    def task(self, function: AsyncFunction | None = None, *, on_leader: bool = False, per_host: bool = False) -> Any:
        """Declare a coroutine to run once the worker has started; one that fails is started again.

        It takes nothing, or the app.

        Args:
            on_leader: in one of the app's workers, and in another one when that one goes.
            per_host: in one of the app's workers on every machine: for what reads the machine itself.
        """
        where = _where(on_leader, per_host)

        def declare(function: AsyncFunction) -> AsyncFunction:
            self._declared.tasks.append(TaskSpec(function.__name__, self._bound(function), where))
            return function

        return declare if function is None else declare(function)

    def timer(
        self, interval: Seconds, *, name: str | None = None, on_leader: bool = False, per_host: bool = False
    ) -> Callable[[AsyncFunction], AsyncFunction]:
        """Declare a coroutine to call every `interval` seconds. It takes nothing, or the app.

        Args:
            on_leader: in one of the app's workers, and in another one when that one goes.
            per_host: in one of the app's workers on every machine.
        """
        where = _where(on_leader, per_host)
        interval_s = milliseconds(interval, "timer interval") / 1000
        if interval_s <= 0:
            raise UsageError(f"a timer's interval is more than 0 seconds, not {interval!r}")

        def declare(function: AsyncFunction) -> AsyncFunction:
            self._declared.timers.append(TimerSpec(name or function.__name__, interval_s, self._bound(function), where))
            return function

        return declare

    def _bound(self, function: AsyncFunction) -> Callable[[], Awaitable[Any]]:
        if not iscoroutinefunction(function):
            raise UsageError(f"{function.__name__} is not async: write `async def {function.__name__}()`")
        if signature(function).parameters:
            return lambda: function(self)
        return function

    def page(self, path: str, *, title: str | None = None) -> Callable[[AsyncFunction], AsyncFunction]:
        """Declare a page: `async def handler(view, request, **path_params)`; with a title it is in the navigation."""
        from streamcore.web.views import Page

        def declare(handler: AsyncFunction) -> AsyncFunction:
            self._declared.pages.append(Page.of(path, handler, title=title))
            return handler

        return declare

    def mount(self, path: str, application: Any, *, title: str | None = None) -> None:
        """Serve an ASGI application under `path` of the web server."""
        self._declared.mounts.append((path, application, title))

    # -- running -------------------------------------------------------------------------------------------------------

    async def send(
        self,
        topic: Topic | str,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | datetime | None = None,
        headers: HeadersArg = None,
    ) -> Awaitable[SentRecord]:
        """Send a record to a topic, or to the topic of that name; see `Topic.send`."""
        target = topic if isinstance(topic, Topic) else self._declared.topics.get(topic)
        if target is None:
            raise UsageError(f"the app declares no topic {topic!r}: declare it with app.topic({topic!r})")
        return await target.send(key=key, value=value, partition=partition, timestamp=timestamp, headers=headers)

    def count(self, name: str, detail: str = "", by: int = 1) -> None:
        """Count something of the app's own; /metrics shows it as streamcore_app_events{name, detail}."""
        if self._worker is not None:
            self._worker.services.metrics.app[(name, detail)] += by

    def worker(self, *, on_recovery: Callable[[str, int, int, int], None] | None = None, **overrides: Any) -> Worker:
        """A worker for this app.

        Args:
            on_recovery: told (table, partition, rows done, rows in all) while tables are recovered.
            overrides: settings that win over the app's, such as `broker` or `web_port`.
        """
        self._declared.config = AppConfig.of(self.id, {**self._settings, **overrides})
        worker = self._worker = Worker(self._declared, clock=SYSTEM_CLOCK, on_recovery=on_recovery)
        if self.conf.listen and self.conf.broker.startswith("embedded:"):
            worker.extra_services.append(self._listening(worker))
        if self.conf.web_enabled:
            from streamcore.web.server import WebServer

            if (metrics := worker.services.transport.metrics()) is not None:
                worker.metrics_registry.register(metrics)
            web = WebServer(worker, clock=SYSTEM_CLOCK)
            worker.extra_services.append(Service(partial(web.start, self.conf.web_host, self.conf.web_port), web.stop))
        return worker

    def _listening(self, worker: Worker) -> Service:
        """Lets Kafka clients, and commands in other processes, at the log that is embedded in this one."""
        from streamcore.transport.shared_directory import SharedDirectoryTransport

        transport = worker.services.transport
        assert isinstance(transport, SharedDirectoryTransport), "the URL says so"

        async def start() -> None:
            endpoint = await transport.listen("127.0.0.1", self.conf.listen_port)
            if endpoint is not None:
                logger.info("Kafka clients reach the log at %s:%d", endpoint.host, endpoint.port)

        return Service(start, transport.stop_listening)

    def declarations(self, **overrides: Any) -> Declarations:
        """What the app declares, under other settings: for test kits and tools."""
        self._declared.config = AppConfig.of(self.id, {**self._settings, **overrides})
        return self._declared

    def bind(self, worker: Worker | None) -> None:
        """Let `count` reach a worker that somebody else made."""
        self._worker = worker

    def stop(self) -> None:
        """Ask the running worker for an orderly stop."""
        if self._worker is not None:
            self._worker.request_stop()

    async def drained(self) -> None:
        """Wait until the running worker has done and committed all input, and no joined row waits for its close."""
        if self._worker is not None:
            await self._worker.drained()

    @asynccontextmanager
    async def running(self, **overrides: Any) -> AsyncIterator[Worker]:
        """A worker for the length of an `async with`, in whatever loop is running."""
        worker = self.worker(**overrides)
        await worker.start()
        try:
            yield worker
        finally:
            await worker.stop()

    def main(self) -> None:
        """The command line of this app: `python app.py worker` and the other commands."""
        from streamcore.cli import main_for

        sys.exit(main_for(self))

    def __repr__(self) -> str:
        return f"<App {self.id}>"
