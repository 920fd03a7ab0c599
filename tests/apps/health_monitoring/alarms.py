"""Alarms to tell people of, for tests."""

from typing import Any

from processors.alerts import Alarm


def an_alarm(state: Any, *, id: str = "e1", sequence: int = 1, at_ms: int = 1_700_000_000_000, **fields: Any) -> Alarm:
    return Alarm(
        **{
            "id": id,
            "key": f"CpuSaturated/{id}",
            "rule": "CpuSaturated",
            "state": state,
            "previous": "inactive",
            "sequence": sequence,
            "at_ms": at_ms,
            "notify": state in ("firing", "resolved", "no_data"),
            "labels": {"host": "web-01", "severity": "critical"},
            "severity": "critical",
            "annotations": {"summary": "web-01 is at 97.3 % CPU"},
            "comparison": ">",
            "value": 97.3,
            "threshold": 95.0,
            **fields,
        }
    )
