"""How the workers of an app share its stream tasks: as members of one consumer group, with an assignor of their own."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import orjson

from streamcore.config import milliseconds
from streamcore.engine.assignor import Claim, assign, partitions_of
from streamcore.engine.services import Services, logger
from streamcore.engine.task_set import TaskSet
from streamcore.protocol.consumer_protocol import (
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from streamcore.protocol.errors import MalformedMessageError
from streamcore.transport.base import GroupChannel
from streamcore.transport.group_member import GroupMember, MemberConfig
from streamcore.types import TP

ASSIGNOR = "streamcore"
# What a worker may take to finish its events, commit and close before the others go on without it; Kafka Streams has
# five minutes, in which nobody would read the partitions of a worker that hangs.
REBALANCE_TIMEOUT_MS = 60_000


class Membership:
    """The worker's place in its app's group.

    Args:
        topics: the agents' topics; a task is a partition number of all of them.
        stored: the tasks whose tables lie on this worker's disk.
    """

    def __init__(
        self,
        services: Services,
        channel: GroupChannel,
        tasks: TaskSet,
        topics: Iterable[str],
        stored: Callable[[], Iterable[int]],
        group_instance_id: str | None,
    ) -> None:
        config = services.config
        self._services = services
        self._tasks = tasks
        self._topics = sorted(set(topics))
        self._stored = stored
        self.assigned = asyncio.Event()  # the group has met, with us in it
        self.member = GroupMember(
            channel,
            self,
            MemberConfig(
                group=services.group,
                protocol=ASSIGNOR,
                session_timeout_ms=milliseconds(config.session_timeout),
                rebalance_timeout_ms=max(REBALANCE_TIMEOUT_MS, 2 * milliseconds(config.drain)),
                group_instance_id=group_instance_id,
            ),
        )

    # -- what the group member asks ------------------------------------------------------------------------------------

    def subscription(self, generation_id: int) -> bytes:
        stored = orjson.dumps({"stored": sorted(self._stored())})
        owned = self._tps(self._tasks.assigned)
        return encode_subscription(Subscription(tuple(self._topics), owned, generation_id, stored))

    async def assign(self, subscriptions: Mapping[str, bytes]) -> dict[str, bytes]:
        counts = self._counts()
        weights = [sum(task < count for count in counts.values()) for task in range(max(counts.values(), default=0))]
        shares = assign(weights, {member_id: _claim(data) for member_id, data in subscriptions.items()})
        if sum(map(len, shares.values())) == len(weights):  # elsewise some are on their way, and the group meets again
            spare = sum(not tasks for tasks in shares.values())
            waiting = f"; {spare} of them wait to take over" if spare else ""
            workers = f"{len(shares)} workers share" if len(shares) > 1 else "one worker has"
            logger.info("%s the %d partitions%s", workers, len(weights), waiting)
        return {member_id: encode_assignment(self._tps(tasks)) for member_id, tasks in shares.items()}

    async def on_assigned(self, assignment: bytes) -> bool:
        before = self._tasks.assigned
        numbers = {tp.partition for tp in decode_assignment(assignment)}
        if numbers != before:
            logger.info("this worker has %s%s", _named(numbers), f"; before, {_named(before)}" if before else "")
        gave_up = await self._tasks.assign(numbers)
        self.assigned.set()
        return gave_up

    async def on_lost(self) -> None:
        if self._tasks.assigned:
            logger.warning(
                "%s may be with other workers now: what is not committed is read again", _named(self._tasks.assigned)
            )
        await self._tasks.lose()

    # ------------------------------------------------------------------------------------------------------------------

    def _counts(self) -> dict[str, int]:
        return {topic: self._services.partitions(topic) for topic in self._topics}

    def _tps(self, tasks: Iterable[int]) -> tuple[TP, ...]:
        return tuple(TP(*place) for place in partitions_of(tasks, self._counts()))


def _claim(data: bytes) -> Claim:
    """What a member says; one that cannot be read is one that has nothing."""
    try:
        subscription = decode_subscription(data)
        content = orjson.loads(subscription.user_data or b"{}")
        stored = frozenset(number for number in content.get("stored", ()) if isinstance(number, int))
    except (MalformedMessageError, ValueError, AttributeError, TypeError):
        return Claim()
    return Claim(frozenset(tp.partition for tp in subscription.owned), subscription.generation_id, stored)


def _named(numbers: Iterable[int]) -> str:
    """`partitions 0-3, 7`"""
    found = sorted(numbers)
    if not found:
        return "no partition"
    ranges: list[list[int]] = []
    for number in found:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    text = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
    return f"partition{'s' if len(found) > 1 else ''} {text}"
