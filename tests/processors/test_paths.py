"""Dotted paths into values."""

from typing import Any

import pytest

from processors.paths import MISSING, Path
from streamcore.models import Record


class Disk(Record):
    percent: float
    name: str = ""


class Metrics(Record):
    cpu: float | None
    disks: dict[str, Disk]
    tags: list[str]
    anything: Any = None

    @property
    def half(self) -> float | None:
        return self.cpu and self.cpu / 2


METRICS = Metrics(cpu=50.0, disks={"/": Disk(10.0), "/var": Disk(96.0)}, tags=[])


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("cpu", {"cpu": 3}, [((), 3)]),
        ("a.b", {"a": {"b": 3}}, [((), 3)]),
        ("a.b", {"a": 7}, [((), MISSING)]),
        ("a.b", None, [((), MISSING)]),
        ("cpu", {"cpu": None}, [((), MISSING)]),
        ("cpu", METRICS, [((), 50.0)]),
        ("half", METRICS, [((), 25.0)]),
        ("disks.*.percent", METRICS, [(("/",), 10.0), (("/var",), 96.0)]),
        ("disks.*.percent", {"disks": {"/": {"used": 1}}}, [(("/",), MISSING)]),
        ("disks.*.percent", {"disks": [1, 2]}, []),
        ("{host}.x", {"a": {"x": 1}, "b": {"x": None}}, [(("a",), 1), (("b",), MISSING)]),
        ("a.{x}.b.{y}", {"a": {1: {"b": {2: 3}}}}, [(("1", "2"), 3)]),
    ],
)
def test_a_path_leads_through_records_and_mappings(path: str, value: Any, found: list[Any]) -> None:
    assert Path(path).read(value) == found


def test_wildcards_name_their_labels() -> None:
    assert Path("disks.*.percent").labels == ("disks",)
    assert Path("disks.{mount}.percent").labels == ("mount",)
    assert Path("net-io.*").labels == ("net_io",)


@pytest.mark.parametrize("text", ["", "a..b", ".a", "a b", "__class__", "_private", "*", "a.*.*", "{x}.a.{x}", "{1}"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|follows no name|share the label"):
        Path(text)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("cpu", None),
        ("half", None),
        ("disks.*.percent", None),
        ("disks.root.percent", None),
        ("anything.at.all", None),
        ("cpus", "Metrics has no field 'cpus': did you mean 'cpu'?"),
        ("disks.*.procent", "Disk has no field 'procent': did you mean 'percent'?"),
        ("disks.*.name", "disks.*.name is of type str, not a number"),
        ("cpu.mean", "cpu has no fields, so there is no 'mean' in it"),
        ("cpu.{x}", "cpu is not a mapping, so it has no elements for *"),
    ],
)
def test_a_path_that_leads_nowhere_in_a_type_is_found(path: str, problem: str | None) -> None:
    assert Path(path).problem_in(Metrics) == problem
