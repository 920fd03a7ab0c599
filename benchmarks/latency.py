"""Latency: from `send` over an agent to a reader of its output, at 10 k events/s for 10 s. No bar, for information."""

import asyncio
import time

import streamcore as sc
from benchmarks.measure import arguments, figure, run, temporary_log

RATE = 10_000  # events per second
TURN_S = 0.001  # the source sends what is due every millisecond
WARM_UP_S = 1.0  # not counted


def declare(broker: str) -> sc.App:
    app = sc.App("latency", broker=broker, web_enabled=False)
    source = app.topic("requests", key_type=str, partitions=8)
    sink = app.topic("answers", key_type=str, partitions=8)

    @app.agent(source, sink=[sink])
    async def answer(stream: sc.Stream):  # type: ignore[no-untyped-def]
        async for event in stream:
            yield {"sent": event["sent"], "id": event["id"]}

    return app


async def main() -> None:
    options = arguments(__doc__.splitlines()[0], records=10 * RATE, rounds=1).parse_args()
    total = options.records + int(WARM_UP_S * RATE)
    async with temporary_log() as log:
        app = declare(log.url)
        async with app.running():
            latencies: list[float] = []

            async def read() -> None:
                async for event in app.topics["answers"].tail():
                    latencies.append(time.perf_counter() - event.value["sent"])
                    if len(latencies) == total:
                        return

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(read(), name="reader")
                await asyncio.sleep(0.1)  # the reader stands at the end of its topic by then
                await send_at_rate(app.topics["requests"], total)
            counted = sorted(latencies[int(WARM_UP_S * RATE) :])
    print(f"verified: {len(latencies)} events came out")
    for percent in (50, 99):
        figure(f"latency at 10 k events/s, p{percent}", 1000 * counted[len(counted) * percent // 100], "ms")
    figure("latency at 10 k events/s, greatest", 1000 * counted[-1], "ms")


async def send_at_rate(topic: sc.Topic, total: int) -> None:
    started_s = time.perf_counter()
    sent = 0
    while sent < total:
        # An event's clock starts when it is due, so that a source that was held up shows as latency.
        due = min(total, int((time.perf_counter() - started_s) * RATE))
        for number in range(sent, due):
            value = {"id": number, "sent": started_s + number / RATE}
            topic.send_soon(key=f"client-{number % 500}", value=value)
        sent = due
        await asyncio.sleep(TURN_S)


if __name__ == "__main__":
    run(main())
