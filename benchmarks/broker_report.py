"""What the rounds of the broker's benchmark found, beside Apache Kafka's and beside the bars."""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.broker_clients import Cost
from benchmarks.measure import figure

SECTION = "## The broker beside Apache Kafka 4.1"
_RESULTS = Path(__file__).with_name("RESULTS.md")

# What a line must reach, as a multiple of Kafka's figure; at least, or at most.
BARS: dict[str, tuple[str, float]] = {
    "kcat produces 100 B, records/s": ("at_least", 2),
    "kcat produces 1 kB, MB/s": ("at_least", 3),
    "kcat consumes 100 B, records/s": ("at_least", 1.3),
    "kcat consumes 1 kB, MB/s": ("at_least", 1.3),
    "Java produces 100 B, records/s": ("at_least", 2),
    "Java produces 1 kB, MB/s": ("at_least", 3),
    "Java consumes 100 B, records/s": ("at_least", 1.3),
    "Java consumes 1 kB, MB/s": ("at_least", 1.3),
    "one record acknowledged, p50, ms": ("at_most", 1),
    "one record acknowledged, p99, ms": ("at_most", 1),
    "memory after it all, MB": ("at_most", 1 / 8),
    "start-up, s": ("at_most", 1 / 5),
}
# Cost per record or request, of the second line to the first: it should not grow.
GROWTHS = {
    "1 to 1,000 partitions": (
        "kcat produces to 1 partition, records/s",
        "kcat produces to 1,000 partitions, records/s",
    ),
    "1 to 1,000 partitions evenly": (
        "kcat produces to 1 partition, records/s",
        "kcat produces to 1,000 partitions evenly, records/s",
    ),
    "1 to 1,000 connections": ("requests over 1 connection, 1/s", "requests over 1,000 connections, 1/s"),
}


@dataclass
class Found:
    """One line's figures, and what they cost, by broker and round."""

    figures: dict[str, list[float]]
    costs: dict[str, list[tuple[Cost, int]]]  # with how many records or requests

    def best(self, name: str, what: str) -> float:
        smaller_is_better = what.endswith((", s", ", ms", ", MB"))
        choose: Callable[[list[float]], float] = min if smaller_is_better else max
        return choose(self.figures[name])

    def broker_us(self, name: str) -> float | None:
        """The broker's CPU time per record or request."""
        return min((1e6 * cost.broker_cpu_s / messages for cost, messages in self.costs[name]), default=None)

    def shares(self, name: str) -> str:
        """Broker and client CPU, in per cent of one core, in the quickest round."""
        if not self.costs[name]:
            return ""
        cost, _ = min(self.costs[name], key=lambda found: found[0].seconds)
        return f"{100 * cost.broker_cpu_s / cost.seconds:.0f} + {100 * cost.client_cpu_s / cost.seconds:.0f} %"


def report(found: Mapping[str, Found], mine: str, other: str) -> list[str]:
    """Print it; the rows of the table."""
    rows = [
        f"| what | {mine} | {other} | ratio | bar | | {mine}, us | {other}, us | {mine}, busy | {other}, busy |",
        "| --- | ---: | ---: | ---: | --- | --- | ---: | ---: | --- | --- |",
    ]
    for what, line in found.items():
        ours, theirs = line.best(mine, what), line.best(other, what)
        bar = BARS.get(what)
        wanted, verdict = "", ""
        if bar is not None:
            is_met = ours / theirs >= bar[1] if bar[0] == "at_least" else ours / theirs <= bar[1]
            wanted, verdict = f"{'>=' if bar[0] == 'at_least' else '<='} {bar[1]:.3g}", "pass" if is_met else "miss"
        used = [f"{us:.3g}" if (us := line.broker_us(name)) is not None else "" for name in (mine, other)]
        shares = [line.shares(name) for name in (mine, other)]
        rows.append(
            f"| {what} | {ours:,.4g} | {theirs:,.4g} | {ours / theirs:.3g} | {wanted} | "
            f"{f'**{verdict}**' if verdict else ''} | {used[0]} | {used[1]} | {shares[0]} | {shares[1]} |"
        )
        print(f"{what}: {mine} {ours:,.4g}, {other} {theirs:,.4g}; broker us {used}, busy {shares}", flush=True)
        limits = {bar[0]: bar[1]} if bar is not None else {}
        figure(f"{what.rpartition(',')[0]}, of Apache Kafka's", ours / theirs, "times", **limits)
    for title, (first, last) in GROWTHS.items():
        growths = []
        for name in (mine, other):
            before, after = found[first].broker_us(name), found[last].broker_us(name)
            growths.append(after / before if before and after else float("nan"))
        rows.append(
            f"| broker CPU per record or request, {title}, times | {growths[0]:.3g} | {growths[1]:.3g} |" + " |" * 7
        )
        figure(f"broker CPU, {title}", growths[0], "times")
    return rows


def write_section(rows: list[str], rounds: int) -> None:
    """In RESULTS.md, in the place of the one before."""
    text = _RESULTS.read_text().partition(SECTION)[0].rstrip()
    head = (
        f"On {datetime.now(UTC):%Y-%m-%d}, with {os.cpu_count()} cores ({platform.machine()}), "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB of memory, shared with other work; by "
        f"`python -m benchmarks.broker --write`, the best of {rounds} round(s) for each. `us` is the broker's CPU "
        "time per record or request; `busy` is broker + client, in per cent of one core, in the quickest round."
    )
    _RESULTS.write_text("\n".join([text, "", SECTION, "", head, "", *rows]) + "\n")
