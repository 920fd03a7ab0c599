from collections.abc import Callable
from pathlib import Path

import pytest

from streamcore.broker.node import NodeConfig
from streamcore.log.memory_disk import MemoryDisk
from streamcore.transport.embedded import EmbeddedTransport


@pytest.fixture(params=["memory", "embedded"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., EmbeddedTransport]:
    """Makes transports that all lead to the same log: in memory, or in a directory."""
    if request.param == "embedded":
        return lambda **options: EmbeddedTransport(str(tmp_path / "data"), **options)
    disk = MemoryDisk()
    in_memory = NodeConfig(background=False, off_loop=False)
    return lambda **options: EmbeddedTransport("/data", disk=disk, **{"config": in_memory, **options})
