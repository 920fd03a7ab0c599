"""Many connections that produce, from one cheap process: `python -m benchmarks.connections ADDRESS TOPIC N REQUESTS`.

The requests are made once, so that nearly all that is measured is the broker's.
"""

import asyncio
import struct
import sys

import uvloop

from streamcore.protocol import messages
from streamcore.records.codec import encode

VERSION = 9
RECORDS_PER_REQUEST = 10
_SIZE = struct.Struct(">i")


def frame(topic: str) -> bytes:
    produce = messages.Produce
    batch = encode([(None, b"x" * 100, 1_700_000_000_000, ())] * RECORDS_PER_REQUEST)
    data = produce.PartitionProduceData(index=0, records=batch)
    out = bytearray(struct.pack(">hhih", produce.key, VERSION, 1, 4) + b"many\0")
    request = produce.Request(
        acks=1,
        timeout_ms=30_000,
        transactional_id=None,
        topic_data=[produce.TopicProduceData(name=topic, partition_data=[data])],
    )
    produce.write_request(VERSION, request, out)
    return _SIZE.pack(len(out)) + bytes(out)


async def main(address: str, topic: str, connections: int, requests: int) -> None:
    host, _, port = address.rpartition(":")
    request = frame(topic)

    async def work() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(requests // connections):
            writer.write(request)
            (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
            await reader.readexactly(size)
        writer.close()

    await asyncio.gather(*(work() for _ in range(connections)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
