"""W1: decode JSON, filter, emit 5 % to another topic, through an agent with a sink."""

from collections.abc import AsyncIterator

import orjson

import streamcore as sc
from benchmarks.measure import (
    KEEP,
    PARTITIONS,
    Timing,
    arguments,
    compare,
    read_all,
    run,
    store,
    stored_batches,
    temporary_log,
    work_off,
)  # fmt: skip
from benchmarks.sensor_events import TOPIC, events, readings

BAR_PERCENT = 50
HOT = 95.0  # values lie in [0, 100), so this emits 5 %


def declare(number: int, broker: str) -> sc.App:
    """The app; every round has a group and an output of its own."""
    app = sc.App(f"w1-{number}", broker=broker, web_enabled=False)
    source = app.topic(TOPIC, key_type=str, partitions=PARTITIONS)
    hot = app.topic(f"hot-{number}", key_type=str, partitions=PARTITIONS, config=KEEP)

    @app.agent(source, sink=[hot])
    async def find_hot(stream: sc.Stream) -> AsyncIterator[dict[str, object]]:
        async for event in stream:
            if event["value"] >= HOT:
                yield event

    return app


async def main() -> None:
    options = arguments(__doc__).parse_args()
    async with temporary_log() as log:
        await store(log, TOPIC, events(options.records, options.seed))
        batches = await stored_batches(log, TOPIC)

        async def workload(number: int, is_last: bool) -> Timing:
            app = declare(number, log.url)
            return await work_off(log, app, [TOPIC], profile=options.profile if is_last else None)

        await compare("W1", batches, workload, records=options.records, rounds=options.rounds, bar_percent=BAR_PERCENT)
        expected = sorted(r.id for r in readings(options.records, options.seed) if r.value >= HOT)
        for number in range(1, options.rounds + 1):
            found = sorted(orjson.loads(record.value)["id"] for record in await read_all(log, f"hot-{number}"))
            assert found == expected, f"round {number} gave {len(found)} events, not {len(expected)}"
        print(f"verified: {len(expected)} events of every round")


if __name__ == "__main__":
    run(main())
