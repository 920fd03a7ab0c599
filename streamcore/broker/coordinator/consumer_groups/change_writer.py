"""Changes on their way to the log, and who waits for them to get there."""

import asyncio
from collections.abc import Awaitable, Callable

from streamcore.broker.coordinator.consumer_groups.changes import Change, Changes
from streamcore.broker.coordinator.consumer_groups.records import encode_change
from streamcore.broker.coordinator.group_messages import GroupError
from streamcore.types import OutRecord

Append = Callable[[list[OutRecord]], Awaitable[GroupError]]


class ChangeWriter:
    """Stores changes in their order. What the log has refused is tried again before anything that comes after it."""

    def __init__(self, changes: Changes, on_due: Callable[[], None]) -> None:
        """
        Args:
            on_due: `write` has something to do.
        """
        self._changes = changes
        self._on_due = on_due
        self._refused: list[Change] = []
        self._stored_number = 0  # of the latest change that is in the log
        self._waits: set[tuple[int, asyncio.Future[bool]]] = set()  # by the number of the change

    def drop(self) -> None:
        """There is no log: everything is as good as stored."""
        self._changes.take()
        self._stored_number = self._changes.last_number

    async def write(self, append: Append, now_ms: int) -> None:
        """Store everything that there is; whoever waits for it is answered."""
        changes = self._refused + self._changes.take()
        if not changes:
            return
        number = self._changes.last_number
        records = [encode_change(change, now_ms) for change in changes]
        error = await append(records)
        if error is GroupError.UNKNOWN_SERVER_ERROR:
            # One that is too large must not take the others with it; those that were stored before it are so twice.
            for record in records:
                await append([record])
        if error is GroupError.COORDINATOR_NOT_AVAILABLE:
            self._refused = changes
        else:
            self._refused, self._stored_number = [], number
        for wait in [wait for wait in self._waits if wait[0] <= number]:
            self._waits.discard(wait)
            if not wait[1].done():
                wait[1].set_result(not error)

    async def is_well(self) -> bool:
        """Whether the log takes what comes up: while it does not, nothing more is to be decided."""
        return not self._refused or await self.stored(self._changes.last_number)

    async def stored(self, number: int) -> bool:
        """Wait until a change, and all before it, are in the log; False where they have not got there."""
        if number <= self._stored_number:
            return True
        if self._refused:
            self._on_due()
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waits.add((number, stored))
        return await stored
