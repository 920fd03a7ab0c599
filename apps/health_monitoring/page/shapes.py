"""Records of the topics in the shapes the page relies on: numbers where numbers belong, whatever was in them."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from apps.health_monitoring.page.series import COLUMN, NAME_MAX, finite, log_line

RECORDS_MAX = 40
LINES_MAX = 20
TOP_MAX = 8
DISKS_MAX = 64
STATISTICS = ("count", "mean", "min", "max", "last")


def builtins(value: Any) -> dict[str, Any] | None:
    """A model as a dict; a dict as it is; None for anything else."""
    if isinstance(value, dict):
        return value
    try:
        plain = msgspec.to_builtins(value, builtin_types=(datetime,))
    except (TypeError, ValueError):
        return None
    return plain if isinstance(plain, dict) else None


def alarm_shape(value: Mapping[str, Any], metric: str | None, clear: float | None, comparison: str) -> dict[str, Any]:
    """An alarm's change with its story.

    Args:
        metric, clear, comparison: of the rule, where the alarm does not have them.
    """
    labels = {name[:100]: label[:NAME_MAX] for name, label in _texts(value.get("labels"))}
    context = _mapping(value.get("context"))
    own_clear = finite(value.get("clear"))
    lines = [line for line in _list(context.get("lines")) if isinstance(line, Mapping)]
    return {
        "id": str(value["id"])[:500],
        "sequence": whole(value.get("sequence")) or 0,
        "rule": str(value.get("rule") or "")[:200],
        "state": str(value["state"])[:20],
        "severity": str(value.get("severity") or labels.get("severity") or "")[:40],
        "host": labels.get("host", ""),
        "labels": {name: label for name, label in labels.items() if name not in ("host", "severity", "alertname")},
        "metric": series_of(value.get("metric")) or metric,
        "measure": _measure(value.get("metric")),
        "comparison": str(value.get("comparison") or comparison)[:2],
        "clear": own_clear if own_clear is not None else clear,
        **{name: finite(value.get(name)) for name in ("value", "first_value", "peak", "threshold")},
        **{name: whole(value.get(name)) for name in ("since_ms", "started_ms", "fired_ms", "resolved_ms")},
        "at_ms": whole(value.get("at_ms")) or 0,
        "reason": str(value.get("reason") or "")[:40],
        "annotations": {name[:100]: text[:2000] for name, text in _texts(value.get("annotations"))},
        "records": origins(value.get("records")),
        "stats": statistics(context.get("stats")),
        "lines": [log_line(line) for line in lines[-LINES_MAX:]],
        "top": processes(context.get("top")),
    }


def _measure(metric: Any) -> str | None:
    """The words for a metric that has no series to draw (`disk_errors`); None for silence, which has no metric."""
    if not isinstance(metric, str) or series_of(metric) is not None:
        return None
    return metric.rsplit(".", 1)[-1].replace("_", " ")[:60]


def series_of(metric: Any) -> str | None:
    """The column behind a rule's metric: `cpu`, `metrics.cpu`, `metrics.disks.{mount}.percent`."""
    if not isinstance(metric, str):
        return None
    if metric in COLUMN:
        return metric
    if metric.startswith(("metrics.disks", "disks")) and metric.endswith("percent"):
        return "disk_percent"
    last = metric.rsplit(".", 1)[-1]
    return last if last in COLUMN else None


def origins(records: Any) -> list[list[Any]]:
    """`[topic, partition, offset]` of each record that has them."""
    found = []
    for record in _list(records)[:RECORDS_MAX]:
        if isinstance(record, Mapping):
            record = (record.get("topic"), record.get("partition"), record.get("offset"))
        try:
            topic, partition, offset = record
            found.append([str(topic)[:255], int(partition), int(offset)])
        except (TypeError, ValueError, OverflowError):
            continue
    return found


def statistics(stats: Any) -> dict[str, dict[str, float | None]]:
    """Count, mean, extremes and last of each series of a window."""
    return {
        str(name)[:40]: {field: finite(summary.get(field)) for field in STATISTICS}
        for name, summary in _mapping(stats).items()
        if isinstance(summary, Mapping)
    }


def processes(top: Any) -> list[dict[str, Any]]:
    """The busiest processes."""
    return [
        {"name": str(process.get("name") or "?")[:100]}
        | {field: finite(process.get(field)) or 0 for field in ("pid", "cpu", "memory", "io")}
        for process in _list(top)[:TOP_MAX]
        if isinstance(process, Mapping)
    ]


def disks(value: Any) -> dict[str, dict[str, float | None]]:
    """Percent, used and total of each mount point."""
    return {
        str(mount)[:NAME_MAX]: {field: finite(disk.get(field)) for field in ("percent", "used", "total")}
        for mount, disk in list(_mapping(value).items())[:DISKS_MAX]
        if isinstance(disk, Mapping)
    }


def whole(value: Any) -> int | None:
    """A whole number that JavaScript holds exactly, or None."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 53:
        return None
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _texts(value: Any) -> Iterable[tuple[str, str]]:
    return [(str(name), str(text)) for name, text in _mapping(value).items()]
