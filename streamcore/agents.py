"""Agents: decorated functions that process a topic's stream."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any

from streamcore.config import ErrorPolicy, error_policy
from streamcore.errors import UsageError
from streamcore.streams import Stream
from streamcore.topics import SentRecord, Topic

AgentFunction = Callable[[Stream], AsyncIterator[Any] | Awaitable[Any]]


class Agent:
    """A function over a topic's stream; one instance of it runs per partition.

    Args:
        function: a coroutine, or an async generator whose yields go to the sinks.
        sinks: topics, agents, or functions (plain or async) of the yielded value.
        concurrency: how many instances share a partition; more than one helps an agent that waits for others,
            and gives up the order of events.
        on_error: what happens to an event that the function raises at.
    """

    def __init__(
        self,
        function: AgentFunction,
        *,
        name: str,
        topic: Topic,
        sinks: Sequence[Any] = (),
        concurrency: int = 1,
        on_error: ErrorPolicy | str,
    ) -> None:
        if not (isasyncgenfunction(function) or iscoroutinefunction(function)):
            raise UsageError(
                f"agent {name} is not async: write `async def {getattr(function, '__name__', name)}(stream)`"
            )
        # 1,000 instances of one agent on one partition would only wait in each other's way.
        if not 1 <= concurrency <= 1000:
            raise UsageError(f"agent {name}: concurrency is 1 to 1000, not {concurrency}")
        self.function = function
        self.is_generator = isasyncgenfunction(function)
        self.name = name
        self.topic = topic
        self.concurrency = concurrency
        self.policy = error_policy(on_error, f"agent {name}")
        self.sinks: list[Any] = []
        self.help = (function.__doc__ or "").strip()
        for sink in sinks:
            self.add_sink(sink)

    def add_sink(self, sink: Any) -> None:
        """Send what the agent yields to `sink` as well.

        Raises:
            UsageError: neither topic, agent nor function.
        """
        if not (isinstance(sink, Topic | Agent) or callable(sink)):
            raise UsageError(f"agent {self.name}: a sink is a topic, an agent or a function, not {sink!r}")
        self.sinks.append(sink)

    async def send(self, **record: Any) -> Awaitable[SentRecord]:
        """Send a record to the agent's topic; arguments as `Topic.send`."""
        return await self.topic.send(**record)

    async def cast(self, value: Any = None, **record: Any) -> None:
        """Send a value to the agent and do not wait for anything."""
        await self.topic.send(value=value, **record)

    def __repr__(self) -> str:
        return f"<Agent {self.name} on {self.topic.name}>"
