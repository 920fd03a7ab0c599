"""The nodes that are open in this process, so that two users of one directory share one."""

import asyncio
from collections.abc import Callable

from streamcore.broker.node import Node
from streamcore.errors import UsageError


class _Shared:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lock = asyncio.Lock()  # one start or stop at a time
        self.node: Node | None = None
        self.users = 0


_shared: dict[str, _Shared] = {}


async def acquire(name: str, make: Callable[[], Node]) -> Node:
    """The started node of this name, made if nobody has it open; each acquire wants a release.

    Raises:
        UsageError: another running event loop of this process has it open.
    """
    loop = asyncio.get_running_loop()
    while True:
        shared = _shared.get(name)
        if shared is not None and shared.loop is not loop:
            if not shared.loop.is_closed():
                raise UsageError(f"{name} is open in another event loop of this process; stop that one first")
            # Its users went away without stopping; nothing of theirs can run any more.
            del _shared[name]
            if shared.node is not None:
                shared.node.close_at_once()
            shared = None
        if shared is None:
            shared = _shared[name] = _Shared(loop)
        async with shared.lock:
            if _shared.get(name) is not shared:
                continue  # it was given up while we waited
            if shared.node is None:
                node = make()
                try:
                    await node.start()
                except BaseException:
                    del _shared[name]
                    raise
                shared.node = node
            shared.users += 1
            return shared.node


async def release(name: str, node: Node) -> None:
    """Stop the node when its last user has gone."""
    shared = _shared.get(name)
    if shared is None or shared.node is not node:
        return
    async with shared.lock:
        shared.users -= 1
        if shared.users == 0:
            try:
                await node.stop()
            finally:
                # Only now: whoever wants the directory meanwhile waits for the lock above, not for a free directory.
                _shared.pop(name, None)


def abandon(name: str) -> None:
    """Forget a node as a killed process would, nothing flushed and nothing closed; for tests of crashes."""
    shared = _shared.pop(name, None)
    if shared is not None and shared.node is not None:
        shared.node.abandon()
