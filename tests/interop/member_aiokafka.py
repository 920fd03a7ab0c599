"""A group member with aiokafka: prints each value, then commits; SIGTERM makes it leave.

usage: member_aiokafka.py BOOTSTRAP TOPIC GROUP SESSION_TIMEOUT_MS HEARTBEAT_INTERVAL_MS
"""

import asyncio
import signal
import sys

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError


async def main(bootstrap: str, topic: str, group: str, session_timeout_ms: str, heartbeat_interval_ms: str) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=int(session_timeout_ms),
        heartbeat_interval_ms=int(heartbeat_interval_ms),
    )
    async with consumer:
        while not stopping.is_set():
            taken = await consumer.getmany(timeout_ms=100, max_records=100)
            for records in taken.values():
                for record in records:
                    print(record.value.decode(), flush=True)
            if taken:
                try:
                    await consumer.commit()
                except CommitFailedError:
                    pass  # a rebalance took what was read before it was committed; then somebody else reads it again


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
