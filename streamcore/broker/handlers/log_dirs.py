"""DescribeLogDirs 1-4: how large the partitions are on disk."""

import shutil
from typing import TYPE_CHECKING, Any

from streamcore.broker.requests import Context
from streamcore.protocol import messages

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_LogDirs = messages.DescribeLogDirs


async def describe_log_dirs(broker: "Broker", request: Any, context: Context) -> Any:
    wanted = None if request.topics is None else {t.topic: set(t.partitions) for t in request.topics}
    topics: dict[str, list[Any]] = {}
    for state in broker.node.partitions():
        name, partition = state.tp
        if wanted is None or partition in wanted.get(name, ()):
            topics.setdefault(name, []).append(
                _LogDirs.DescribeLogDirsPartition(partition_index=partition, partition_size=state.size_bytes)
            )
    path = broker.node.directory.path
    try:
        usage = shutil.disk_usage(path)
        total, free = usage.total, usage.free
    except OSError:
        total = free = -1
    return _LogDirs.Response(
        results=[
            _LogDirs.DescribeLogDirsResult(
                log_dir=path,
                topics=[
                    _LogDirs.DescribeLogDirsTopic(name=name, partitions=partitions)
                    for name, partitions in topics.items()
                ],
                total_bytes=total,
                usable_bytes=free,
            )
        ]
    )


HANDLERS = {_LogDirs: describe_log_dirs}
