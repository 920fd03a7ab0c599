"""Runs the program in this process, as a shell would run it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from streamcore.cli.program import PROGRAM


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str
    out_bytes: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """`run("topics", "list", input=b"…")` in an empty directory, without a terminal."""
    monkeypatch.chdir(tmp_path)
    for name in ("STREAMCORE_DATA", "STREAMCORE_BROKER"):
        monkeypatch.delenv(name, raising=False)

    def run(*args: str, input: bytes | str | None = None, program: Any = PROGRAM) -> Outcome:
        result = CliRunner().invoke(program, list(args), input=input)
        return Outcome(result.exit_code, result.stdout, result.stderr, result.stdout_bytes)

    return run


@pytest.fixture
def greetings(run: Run) -> Run:
    """A topic `greetings` of two partitions with three records: one keyed in partition 0, two in partition 1."""
    assert run("topics", "create", "greetings", "-p", "2").code == 0
    assert run("produce", "greetings", "hello", "-k", "a", "-p", "0", "-t", "1700000000000", "-H", "lang=en").code == 0
    assert run("produce", "greetings", "-p", "1", "-t", "1700000001000", input="bonjour\nhola\n").code == 0
    return run
