"""Committed offsets over the wire, in few requests: what comes while one is under way goes with the next.

A worker commits every partition by itself; with a hundred of them, a request each would be most of what a broker does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from streamcore.errors import BrokerUnreachableError, GroupMembershipError, StreamcoreError
from streamcore.transport.base import Committed, Generation
from streamcore.types import TP

Send = Callable[[str, Mapping[TP, Committed], Generation | None], Awaitable[None]]
# A record of committed metadata has up to 4 KB: so many stay well below the size that a broker takes.
REQUEST_MAX_PARTITIONS: Final = 500

_Key = tuple[str, Generation | None]
_Entry = tuple[Mapping[TP, Committed], asyncio.Future[None]]


class Commits:
    """One request at a time per group and member.

    Args:
        send: makes the request.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: dict[_Key, list[_Entry]] = {}
        self._running: dict[_Key, asyncio.Task[None]] = {}

    async def commit(self, group: str, offsets: Mapping[TP, Committed], member: Generation | None) -> None:
        """
        Raises:
            StreamcoreError: these offsets were not taken; what went with them may have been.
        """
        key = group, member
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((offsets, done))
        if key not in self._running:
            self._running[key] = asyncio.create_task(self._empty(key), name=f"commits of {group}")
        await done

    async def _empty(self, key: _Key) -> None:
        entries: list[_Entry] = []
        try:
            while waiting := self._waiting.get(key):
                entries = self._take(waiting)
                failed = await self._try(key, entries)
                if failed is not None and len(entries) > 1 and not isinstance(failed, GroupMembershipError):
                    # One of them may be to blame, and must not keep the others from their commits.
                    for entry in entries:
                        self._tell([entry], await self._try(key, [entry]))
                else:
                    self._tell(entries, failed)
        finally:
            del self._running[key]
            # Whoever is left is not cancelled, so that is not what it is told.
            self._tell(entries + self._waiting.pop(key, []), BrokerUnreachableError("the connection is closed"))

    @staticmethod
    def _take(waiting: list[_Entry]) -> list[_Entry]:
        taken: list[_Entry] = []
        count = 0
        while waiting and (not taken or count + len(waiting[0][0]) <= REQUEST_MAX_PARTITIONS):
            count += len(waiting[0][0])
            taken.append(waiting.pop(0))
        return taken

    async def _try(self, key: _Key, entries: list[_Entry]) -> StreamcoreError | None:
        offsets: dict[TP, Committed] = {}
        for wanted, _ in entries:
            offsets.update(wanted)
        try:
            await self._send(key[0], offsets, key[1])
        except StreamcoreError as error:
            return error
        return None

    @staticmethod
    def _tell(entries: list[_Entry], failed: StreamcoreError | None) -> None:
        for _, done in entries:
            if done.done():
                continue  # whoever waited was cancelled
            if failed is None:
                done.set_result(None)
            else:
                done.set_exception(failed)

    async def close(self) -> None:
        """Give up what is under way."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
