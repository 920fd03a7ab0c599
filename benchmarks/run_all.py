"""Runs every benchmark, one after the other, and writes what they printed into RESULTS.md."""

import argparse
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import psutil

from benchmarks.broker_report import SECTION

HERE = Path(__file__).parent
BENCHMARKS = ("w1", "w2", "health_join", "table_recovery", "log_open", "memory", "latency", "nab_replay")
FIGURE = re.compile(
    r"(?P<name>[^:]+): (?P<value>-?[\d.,]+(?:e[+-]?\d+)?) ?(?P<unit>[^(]*?)"
    r"(?: \(bar (?P<bar>[^:]+): (?P<verdict>pass|miss)\))?"
)
BARS = {("log_open", "open after an orderly stop"): 0.5}  # at most; for a benchmark that prints no bars of its own
NOT_FIGURES = ("round ", "step ", "verified")  # lines on the way to a figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which ones (default: all of {', '.join(BENCHMARKS)})")
    parser.add_argument("--records", type=int, help="as the benchmarks' own, for a shorter run")
    names = (options := parser.parse_args()).names or [n for n in BENCHMARKS if find_spec(f"benchmarks.{n}")]
    rows: list[str] = []
    failed: list[str] = []
    for name in names:
        print(f"--- {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if options.records and name not in ("log_open", "nab_replay"):
            command += ["--records", str(options.records)]
        output, code = _run(command)
        rows += _rows(name, output)
        if code:
            failed.append(name)
            rows.append(f"| {name} | failed with exit code {code} | | |")
    if options.records or options.names:
        print("RESULTS.md is left as it is: it holds full runs of everything")
    else:
        page = HERE / "RESULTS.md"
        # The broker's section is written by the broker's benchmark, which is not one of these.
        _, heading, section = page.read_text().partition(SECTION)
        page.write_text(_page(rows) + (f"\n{heading}{section}" if heading else ""))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _run(command: list[str]) -> tuple[list[str], int]:
    """Run one benchmark, showing its lines as they come."""
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))
    return lines, process.returncode


def _rows(name: str, lines: list[str]) -> list[str]:
    rows: list[str] = []
    for line in lines:
        found = FIGURE.fullmatch(line)
        if found is None or line.startswith(NOT_FIGURES):
            continue
        bar, verdict = found["bar"] or "", found["verdict"]
        if (at_most := BARS.get((name, found["name"]))) is not None:
            bar = f"<= {at_most:g} {found['unit']}"
            verdict = "pass" if float(found["value"].replace(",", "")) <= at_most else "miss"
        shown = f"**{verdict}**" if verdict else ""
        rows.append(f"| `{name}` {found['name']} | {found['value']} {found['unit']} | {bar} | {shown} |")
    return rows


def _page(rows: list[str]) -> str:
    memory_gib = psutil.virtual_memory().total / 2**30
    head = [
        "# What was measured",
        "",
        f"On {datetime.now(UTC):%Y-%m-%d}, with {os.cpu_count()} cores ({platform.machine()}), "
        f"{memory_gib:.0f} GiB of memory, "
        f"{platform.python_implementation()} {platform.python_version()}, shared with other work; by `make bench`. "
        "Ratios are to the floor of the same run (see README.md), so that the machine cancels out.",
        "",
        "| what | figure | bar | |",
        "| --- | ---: | --- | --- |",
    ]
    return "\n".join([*head, *rows]) + "\n"


if __name__ == "__main__":
    main()
