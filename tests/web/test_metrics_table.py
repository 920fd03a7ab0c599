"""The table of metrics and what is exported are the same set."""

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric

import streamcore.web
from streamcore.engine.metrics import EngineMetrics
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import TP

TABLE = Path(streamcore.web.__file__).with_name("METRICS.md")
ROW = re.compile(r"\| `(\w+)` \| (\w+) \| ((?:`\w+`(?:, )?)*) ?\| \S.* \|")
SUFFIXES = {"counter": "_total", "info": "_info"}


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels by name."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    rows = [ROW.fullmatch(line) for line in lines]
    assert None not in rows, [line for line, row in zip(lines, rows, strict=True) if row is None]
    found = {row[1]: (row[2], frozenset(re.findall(r"`(\w+)`", row[3]))) for row in rows if row is not None}
    assert len(found) == len(lines), "a name stands in the table twice"
    return found


def exported(families: Iterable[Metric]) -> dict[str, tuple[str, frozenset[str]]]:
    return {
        family.name + SUFFIXES.get(family.type, ""): (
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
        )
        for family in families
    }


def test_every_exported_metric_is_in_the_table_and_the_other_way_round(tmp_path: Path) -> None:
    async def main() -> dict[str, tuple[str, frozenset[str]]]:
        transport = EmbeddedTransport(str(tmp_path / "data"))
        await transport.start()
        try:
            endpoint = await transport.listen("127.0.0.1", 0)
            assert endpoint is not None
            await transport.create_topic("t", partitions=1)
            await transport.produce({TP("t", 0): [(None, b"v", 1, ())]})
            door = transport.node.door
            assert door is not None
            # A heartbeat of a member that nobody knows, and a frame that is none: samples with every label.
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            writer.write(bytes.fromhex("00000014 000c 0000 00000001 0000 0001 67 00000001 0001 6d"))
            writer.write(bytes.fromhex("7fffffff"))
            await reader.read()
            writer.close()
            await writer.wait_closed()
            while door.connections:  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0)
            return exported(transport.metrics().collect())
        finally:
            await transport.stop()

    engine = EngineMetrics()
    for tally, labels in (
        (engine.events, 1), (engine.errors, 1), (engine.dead_letters, 2), (engine.skipped, 1), (engine.late, 1),
        (engine.undecodable, 2), (engine.produce_errors, 1), (engine.app, 2), (engine.lag, 2), (engine.watermark, 2),
    ):  # fmt: skip
        tally[("x",) * labels] = 1
    found = asyncio.run(main()) | exported(engine.collect())
    found |= {
        name: value for name, value in exported(REGISTRY.collect()).items() if name.startswith(("process_", "python_"))
    }
    assert found == documented()
