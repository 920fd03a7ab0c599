"""Starts the child again and again, and kills it with SIGKILL at moments that it does not expect."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from streamcore.types import TP
from tests.chaos import known_input
from tests.chaos.notes import CommittedOffset, NotesReader, Phase, Records
from tests.chaos.worker import POINTS

ROOT = Path(__file__).parents[2]
APPS = ("health-monitoring", "chaos-windows")
STEPS_PER_KILL = 45  # of the input: a life sends some, not all of it
POLL_S = 0.002
LIFE_MAX_S = 60.0  # a child that is neither done nor dead after this long hangs
IDLE_SOON_S = 0.2  # where event time is to follow the clock


@dataclass
class Tally:
    """What has happened so far."""

    kills: Counter[str] = field(default_factory=Counter)  # by what the child was doing
    starts: int = 0
    orderly_stops: int = 0
    recoveries: int = 0  # lives in which a table was rebuilt or repaired from its changelog
    deleted_stores: int = 0
    acknowledged: int = 0
    unacknowledged: int = 0  # records that were on the log though nobody had been told


class ChaosError(AssertionError):
    """The child did what no kill excuses."""


class Driver:
    """One run: a directory, a seed, and the lives of one child after the other.

    Attributes:
        records: every record that was acknowledged or seen, by place; the same place never has two contents.
        committed: the greatest acknowledged offset of every group and partition.
    """

    def __init__(
        self, directory: Path, seed: int, kills: int, say: Callable[[str], None], *, idle_s: Sequence[float] = (0.5, 2)
    ) -> None:
        """Args: idle_s: how long a child stands idle at most while event time follows the clock; one of them."""
        self.directory = directory
        self.kills_wanted = kills
        self.records: dict[TP, dict[int, int]] = {}
        self.committed: dict[tuple[str, TP], int] = {}
        self.tally = Tally()
        self._rng = random.Random(seed)
        self._say = say
        self._idle_s = idle_s
        self._notes = NotesReader(directory / "notes")
        segments = max(2, round(kills * STEPS_PER_KILL / known_input.SEGMENT_STEPS))
        self.steps = known_input.write(directory / "input", seed, segments)
        self._allowed = 0  # steps of the input that a child may have sent
        self._phase = "importing"
        self._committing = 0
        self._has_recovered = False

    @property
    def tables(self) -> list[Path]:
        """Every directory of a task's tables."""
        return sorted(path for app in APPS for path in (self.directory / "log" / "apps" / app / "tables").glob("*"))

    # -- lives ---------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Kill so often as was asked for, then let the child finish."""
        kinds: dict[Callable[[], None], int] = {
            self._kill_young: 22, self._kill_busy: 35, self._kill_at_point: 25, self._kill_stopping: 10,
            self._kill_idle: 8,
        }  # fmt: skip
        lives = list(kinds)
        deck: list[Callable[[], None]] = []
        told = 0
        while self.tally.kills.total() < self.kills_wanted:
            if not deck:  # every kind has its turn in a short run too
                deck = self._rng.sample(lives, len(lives)) + self._rng.choices(
                    lives, [*kinds.values()], k=max(0, self.kills_wanted - len(lives))
                )
            deck.pop(0)()
            done = self.tally.kills.total()
            if self._rng.random() < 0.2 or done == self.kills_wanted - 1:
                self.lose_tables()
            if done >= told + 10:
                told = done
                self._say(f"{done} kills, {self.tally.starts} starts, {self.tally.acknowledged} records acknowledged")
        self.drain()

    def drain(self) -> None:
        """All input sent; then one life to the end of all work, and an orderly stop.

        They are two lives, as event time may follow the clock only when nothing can come late any more.
        """
        child = self._start()
        self._wait(child, lambda: self._phase == "waiting", LIFE_MAX_S + self.steps * 0.05, or_fail=True)
        child.terminate()
        self._end(child)
        self._end(self._start("--drain", "--idle-after", "0.3"))

    def _end(self, child: "subprocess.Popen[bytes]") -> None:
        """Wait until it stops by itself."""
        self._wait(child, lambda: False, LIFE_MAX_S, or_fail=True)
        self._kill(child)

    def _kill_young(self) -> None:
        """Anywhere from the start of the interpreter to the first work."""
        child = self._start(*self._some_input())
        self._wait(child, lambda: False, self._rng.uniform(0.0, 1.6))
        self._kill(child)

    def _kill_busy(self) -> None:
        child = self._start(*self._some_input())
        self._wait(child, self._is_running, LIFE_MAX_S, or_fail=True)
        self._wait(child, lambda: False, self._rng.choice((0.02, 0.2, 1.0)) * self._rng.uniform(0, 1.2))
        self._kill(child)

    def _kill_at_point(self) -> None:
        """At an exact place in the code: before or after a step of a commit, or in the middle of a write."""
        point, count = self._rng.choice(POINTS), round(10 ** self._rng.uniform(0, 2.3))
        child = self._start(*self._some_input(), "--die-at", point, "--die-count", str(count))
        self._wait(child, lambda: self._phase == "waiting", LIFE_MAX_S)
        self._wait(child, lambda: False, 0.5)
        self._kill(child)

    def _kill_stopping(self) -> None:
        child = self._start(*self._some_input())
        self._wait(child, self._is_running, LIFE_MAX_S, or_fail=True)
        self._wait(child, lambda: False, self._rng.uniform(0, 0.8))
        child.terminate()
        self._wait(child, lambda: self._phase == "stopping", LIFE_MAX_S)
        self._wait(child, lambda: False, self._rng.choice((0.01, 0.1)) * self._rng.uniform(0, 1))
        self._kill(child)

    def _kill_idle(self) -> None:
        """All input of a segment is done and event time follows the clock; now and then until the hosts are missed."""
        size = known_input.SEGMENT_STEPS
        boundary = min(self.steps - 1, -(-max(self._allowed, 1) // size) * size)
        self._allowed = boundary
        child = self._start("--until", str(boundary))
        self._wait(child, lambda: self._phase == "waiting", LIFE_MAX_S, or_fail=True)
        self._wait(child, lambda: False, self._rng.uniform(0, 0.5))
        self._kill(child)
        if self.tally.kills.total() < self.kills_wanted:
            child = self._start("--until", str(boundary), "--idle-after", str(IDLE_SOON_S))
            self._wait(child, lambda: self._phase == "waiting", LIFE_MAX_S, or_fail=True)
            self._wait(child, lambda: False, self._rng.choice(self._idle_s) * self._rng.uniform(0.5, 1))
            self._kill(child)

    def _some_input(self) -> list[str]:
        rng = self._rng
        self._allowed = min(self.steps - 1, self._allowed + rng.randrange(2 * STEPS_PER_KILL))
        pace_s = rng.choice((0.0, 0.0, 0.005, 0.02))
        return ["--until", str(self._allowed), "--pace", str(pace_s)]

    def lose_tables(self, *, all_of_them: bool = False) -> None:
        """The tables of both apps, of one app or of one partition go, as if their disk had."""
        chosen = tables = self.tables
        if tables and not all_of_them:
            app = self._rng.choice(APPS)
            of_app = [path for path in tables if app in path.parts]
            chosen = of_app if self._rng.random() < 0.5 else [self._rng.choice(tables)]
        for path in chosen:
            shutil.rmtree(path)
        self.tally.deleted_stores += len(chosen)

    # -- one life ------------------------------------------------------------------------------------------------------

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        seen = [[*tp, max(places) + 1] for tp, places in self.records.items()]
        (self.directory / "seen.json").write_text(json.dumps(seen))
        rng = self._rng
        command = [sys.executable, "-m", "tests.chaos.worker", str(self.directory), *arguments]
        command += ["--flush", rng.choice(("interval", "interval", "always"))]
        command += ["--commit-interval", rng.choice(("0.01", "0.1", "0.4"))]
        self._phase, self._committing, self._has_recovered = "importing", 0, False
        self.tally.starts += 1
        with (self.directory / "output").open("ab") as output:
            return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=dict(os.environ))

    def _is_running(self) -> bool:
        return self._phase in ("running", "waiting")

    def _wait(
        self, child: "subprocess.Popen[bytes]", until: Callable[[], bool], seconds: float, *, or_fail: bool = False
    ) -> None:
        """Until something is noted, or for so long, or until the child is dead."""
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s and child.poll() is None:
            self._read_notes()
            if until():
                return
            time.sleep(POLL_S)
        if or_fail and child.poll() is None:
            child.kill()
            raise ChaosError(f"the child hangs while {self._phase}; see {self.directory / 'output'}")

    def _kill(self, child: "subprocess.Popen[bytes]") -> None:
        child.kill()
        code = child.wait()
        self._read_notes()
        self.tally.recoveries += self._has_recovered
        if code == -9:
            in_commit = self._committing > 0 and self._phase in ("running", "waiting")
            self.tally.kills["committing" if in_commit else self._phase] += 1
        elif code == 0 and self._phase == "stopped":
            self.tally.orderly_stops += 1
        else:
            raise ChaosError(f"the child ended with code {code} while {self._phase}; see {self.directory / 'output'}")

    def _read_notes(self) -> None:
        for note in self._notes.new():
            if isinstance(note, Phase):
                if note.name in ("committing", "committed"):
                    self._committing += 1 if note.name == "committing" else -1
                elif note.name == "recovering":
                    self._has_recovered = True
                    self._phase = note.name
                else:
                    self._phase = note.name
            elif isinstance(note, CommittedOffset):
                place = (note.group, note.tp)
                self.committed[place] = max(note.offset, self.committed.get(place, 0))
            else:
                self._take(note)

    def _take(self, note: Records) -> None:
        """Every offset has one content, whoever tells of it."""
        known = self.records.setdefault(note.tp, {})
        for offset, crc in enumerate(note.crcs, note.base_offset):
            if known.setdefault(offset, crc) != crc:
                raise ChaosError(f"{note.tp}@{offset} was given out twice, for different records")
        if note.letter == "A":
            self.tally.acknowledged += len(note.crcs)
        else:
            self.tally.unacknowledged += len(note.crcs)
