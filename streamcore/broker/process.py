"""A broker as a process of its own: opened in order, served until it is told to stop, closed in order."""

import asyncio
import gc
import logging
import os
import resource
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Final

from streamcore.broker import shared_nodes
from streamcore.broker.broker import Endpoint
from streamcore.broker.config import BrokerConfig
from streamcore.broker.listener import Listener
from streamcore.broker.node import Node, NodeConfig
from streamcore.clock import SYSTEM_CLOCK
from streamcore.log.directory import LogDirectory

logger = logging.getLogger(__name__)

# Python's collector looks for cycles after every 700 allocations. A request of 1,000 partitions makes more objects than
# that, without a cycle, and would be looked at several times while it is answered: a third of its cost.
GC_THRESHOLD: Final = (50_000, 20, 50)


async def serve(
    data: Path,
    host: str,
    port: int,
    *,
    config: BrokerConfig,
    node_config: NodeConfig,
    advertised: Endpoint | None,
    on_ready: Callable[[Endpoint], None],
    stop: asyncio.Event,
    beside: AbstractAsyncContextManager[object] | None = None,
) -> None:
    """Serve the log in `data` until `stop` is set.

    Args:
        data: an absolute path.
        beside: entered once clients can come, left before they have to go; the broker's pages.
        port: 0 takes a free one; `on_ready` is told which.
    Raises:
        DirectoryHeldError, DirectoryUnusableError, UsageError
    """
    _allow_open_files()
    gc.set_threshold(*GC_THRESHOLD)
    path, clock = str(data), SYSTEM_CLOCK

    def make() -> Node:
        return Node(lambda: LogDirectory.open(path, clock=clock), node_config, clock)

    # Shared, so that pages of this process read the same log.
    node = await shared_nodes.acquire(path, make)
    try:
        listener = node.listener = Listener(node, path, config, clock)
        bound = await listener.start(host, port, advertised=advertised)
        try:
            assert bound is not None, "the node is this function's own"
            async with beside or nullcontext():
                on_ready(bound)
                _notify_systemd("READY=1")
                await stop.wait()
                _notify_systemd("STOPPING=1")
        finally:
            await listener.stop()
    finally:
        await shared_nodes.release(path, node)


def _allow_open_files() -> None:
    """As many descriptors as the process may have: the usual 1,024 are for programs that call select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        logger.warning("no more than %d files and connections can be open at once: %s", soft, error)


def _notify_systemd(state: str) -> None:
    """sd_notify(3), where the service manager asks for it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        logger.warning("the service manager could not be told %s: %s", state, error)
