"""A worker that dies at every single step of its commits: tables exact, outputs complete, repeats identical."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

import streamcore as sc
from streamcore.testing import AppTest
from streamcore.types import TP, OutRecord

from .faulty import FaultyAppTest

T0_MS = 1_767_225_600_000  # where AppTest begins
KEYS = "abc"


class Everything:
    """An app with one of each: a table, windows, own state with deadlines, a join."""

    def __init__(self) -> None:
        app = self.app = sc.App("all", topic_partitions=1, on_error=sc.retry(1, backoff=0.05))
        orders = self.orders = app.topic("orders", key_type=str)
        labels = self.labels = app.topic("labels", key_type=str)
        self.outputs = [app.topic(name, key_type=str) for name in ("counted", "closed", "silent", "joined")]
        counted, closed, silent, joined = self.outputs
        counts = self.counts = app.Table("counts", default=int)

        async def on_close(key: Any, value: int) -> None:
            await closed.send(key=key[0], value={"id": [key[0], key[1][0]], "sum": value})

        sums = app.Table("sums", default=int, on_window_close=on_close).tumbling(5, expires=10)
        per_join = app.Table("per_join", default=int)

        @app.agent(orders, sink=[counted])
        async def count(stream: sc.Stream) -> Any:
            async for event in stream.events():
                counts[event.key] += 1
                counts[f"order {event.offset}"] = event.value
                sums[event.key] += event.value
                yield {"id": event.offset, "count": counts[event.key]}

        @app.agent(orders)
        async def watch(stream: sc.Stream) -> None:
            due = stream.state("due")
            for at_ms in due.values():
                stream.wake_at(at_ms)
            async for event in stream.with_time():
                if isinstance(event, sc.Watermark):
                    for key, at_ms in sorted(due.items()):
                        if at_ms <= event.timestamp_ms:
                            del due[key]
                            await silent.send(key=key, value={"id": [key, at_ms]})
                else:
                    due[event.key] = event.timestamp + 3000
                for at_ms in due.values():
                    stream.wake_at(at_ms)

        @app.agent(labels, sink=[joined])
        async def join(stream: sc.Stream) -> Any:
            async for label, values in stream.join(orders, before=2, after=2, how="left", collect=True):
                per_join[label["of"]] += len(values)
                yield {"id": label["n"], "orders": values, "total": per_join[label["of"]]}

    def waves(self) -> Iterator[dict[TP, list[OutRecord]]]:
        """The input, in three waves."""
        for wave in range(3):
            orders: list[OutRecord] = []
            labels: list[OutRecord] = []
            for n in range(wave * 8, wave * 8 + 8):
                key = KEYS[n * n % 3]
                orders.append((key.encode(), b"%d" % n, T0_MS + n * 1100, ()))
                if n % 2:
                    label = orjson.dumps({"n": n, "of": key})
                    labels.append((key.encode(), label, T0_MS + n * 1100 - 500, ()))
            yield {TP("orders", 0): orders, TP("labels", 0): labels}

    def results(self, test: AppTest) -> dict[str, dict[str, Any]]:
        """Outputs by topic and identity; repeats are equal, or the test fails."""
        found: dict[str, dict[str, Any]] = {}
        for topic in self.outputs:
            rows = found[topic.name] = {}
            for event in test.all_events(topic):
                identity = orjson.dumps(event.value["id"]).decode()
                told = (event.key, event.value, event.timestamp)
                assert rows.setdefault(identity, told) == told, f"{topic.name}: a repeat differs from the first"
        # Not the times: those of what the clock closed at the end depend on when that was.
        return {topic: {identity: told[:2] for identity, told in rows.items()} for topic, rows in found.items()}


def run(cut: tuple[int, int] | None, *, lose_tables: bool) -> tuple[dict[str, Any], list[int]]:
    """Everything an app gives, with a power cut at (wave, step), and how many steps each wave took."""
    everything = Everything()
    steps = []
    with FaultyAppTest(everything.app) as test:
        for number, wave in enumerate(everything.waves()):
            test.faults.reset()
            if cut is not None and cut[0] == number:
                test.faults.cut_at = cut[1]
            test.put(wave)
            if cut is not None and cut[0] == number:
                test.pass_time(0.5)
                assert test.faults.is_cut
                test.crash_and_restart(lose_tables=lose_tables)
                test.assert_changelogs_equal_stores()
            else:
                test.settle()
            steps.append(len(test.faults.steps))
        test.advance(120)
        tables = {name: test.table(name) for name in ("counts", "per_join")}
        test.assert_changelogs_equal_stores()
        test.crash_and_restart(lose_tables=True)
        assert {name: test.table(name) for name in ("counts", "per_join")} == tables
        assert test.dead_letters() == []
        return {**everything.results(test), "tables": tables}, steps


@pytest.fixture(scope="module")
def undisturbed() -> tuple[dict[str, Any], list[int]]:
    return run(None, lose_tables=False)


def test_an_undisturbed_run_gives_what_an_offline_computation_gives(undisturbed: Any) -> None:
    results, _ = undisturbed
    keys = [KEYS[n * n % 3] for n in range(24)]
    assert results["tables"]["counts"] == {**Counter(keys), **{f"order {n}": n for n in range(24)}}
    sums: Counter[tuple[str, float]] = Counter()
    for n, key in enumerate(keys):
        sums[(key, (T0_MS + n * 1100) // 5000 * 5.0)] += n
    assert {(v["id"][0], v["id"][1]): v["sum"] for _, v in results["closed"].values()} == sums
    expected = {
        n: [m for m in range(24) if keys[m] == keys[n] and -2000 <= (m - n) * 1100 + 500 <= 2000]
        for n in range(1, 24, 2)
    }
    assert {value["id"]: value["orders"] for _, value in results["joined"].values()} == expected
    assert set(results["counted"]) == {str(n) for n in range(24)}


@pytest.mark.parametrize("lose_tables", [False, True], ids=["store kept", "store lost"])
@pytest.mark.parametrize("wave", [0, 1, 2])
def test_a_power_cut_at_any_step_changes_nothing(wave: int, lose_tables: bool, undisturbed: Any) -> None:
    expected, steps = undisturbed
    for step in range(steps[wave]):
        results, _ = run((wave, step), lose_tables=lose_tables)
        assert results == expected, f"cut at step {step} of wave {wave}"
