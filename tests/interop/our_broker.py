"""Our broker as users start it: `streamcore broker --data DIR --port N`, in a process of its own."""

import importlib.util
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.interop.cluster import Cluster, stop, tail

NAME: Final = "streamcore"
_REPOSITORY: Final = Path(__file__).parents[2]
_START_SECONDS_MAX: Final = 20.0
_READY: Final = re.compile(r"READY (\S+:\d+)\s*")


def streamcore_command() -> list[str]:
    """How to start `streamcore` with this very Python."""
    if importlib.util.find_spec("streamcore.__main__") is not None:
        return [sys.executable, "-m", "streamcore"]
    script = Path(sys.executable).with_name("streamcore")
    if not script.exists():
        pytest.fail(f"{script} is not there: the package is not installed in this environment")
    return [str(script)]


@contextmanager
def our_broker(directory: Path, *options: str) -> Iterator[Cluster]:
    """A running broker of ours on a port of its choice, ended by SIGTERM.

    Args:
        directory: empty, or the data of an earlier run; its standard error goes to `broker.err` beside it.
        options: further options of `streamcore broker`.
    """
    errors = directory.with_name(directory.name + ".err")
    # This copy of the package, also where another one is installed.
    paths = [str(_REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    command = [*streamcore_command(), "broker", "--data", str(directory), "--port", "0", *options]
    with errors.open("ab") as sink:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, text=True, env=environment)
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_read_lines, args=(process.stdout, lines), name="broker's output", daemon=True)
    reader.start()
    try:
        try:
            first = lines.get(timeout=_START_SECONDS_MAX)
        except queue.Empty:
            pytest.fail(f"`{' '.join(command)}` printed nothing in {_START_SECONDS_MAX} s:\n{tail(errors)}")
        ready = _READY.fullmatch(first)
        if ready is None:
            said = f"printed {first!r} and not READY HOST:PORT" if first else "ended before it was ready"
            pytest.fail(f"`{' '.join(command)}` {said}:\n{tail(errors)}")
        yield Cluster(NAME, ready[1])
        assert process.poll() is None, f"the broker died during the tests:\n{tail(errors)}"
    finally:
        stop(process)
        reader.join()
        process.stdout.close()
    assert process.returncode in (0, -15), f"exit code {process.returncode} after SIGTERM:\n{tail(errors)}"


def _read_lines(source: "subprocess.IO[str]", lines: "queue.Queue[str]") -> None:
    for line in source:
        lines.put(line)
    lines.put("")  # the end of its output
