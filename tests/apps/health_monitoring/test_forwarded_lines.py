"""Lines out of a topic: JSON, syslog, and anything else."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.health_monitoring.forwarded_lines import read_line
from apps.health_monitoring.models import LogLine

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def read(data: bytes) -> LogLine:
    return read_line(data, NOW, "relay")


def test_rsyslogs_own_json_is_read() -> None:
    line = read(orjson.dumps({
        "msg": " EXT4-fs error", "rawmsg": "<11>...", "timereported": "2026-03-01T13:59:58.5+02:00",
        "hostname": "db-01.example.com", "syslogtag": "kernel[7]:", "inputname": "imuxsock", "pri": "11",
        "syslogfacility": "1", "syslogseverity": "3", "programname": "kernel", "procid": "7", "msgid": "-",
    }))  # fmt: skip
    assert (line.host, line.facility, line.severity, line.app, line.pid) == ("db-01", "user", "err", "kernel", "7")
    assert (line.message, line.message_id, line.format) == ("EXT4-fs error", None, "json")
    assert line.time == NOW - timedelta(seconds=1.5)
    assert line.time.tzinfo is UTC


@pytest.mark.parametrize(
    ("severity", "known"),
    [("err", "err"), ("error", "err"), ("2", "crit"), (4, "warning"), ("9", "notice"), ({}, "notice")],
)
def test_everyday_names_are_read(severity: object, known: str) -> None:
    line = read(
        orjson.dumps({"host": "web", "message": "m", "severity": severity, "facility": "daemon", "program": "p"})
    )
    assert (line.host, line.severity, line.facility, line.app, line.message) == ("web", known, "daemon", "p", "m")
    assert line.time == NOW


def test_a_clock_that_is_far_off_is_not_believed() -> None:
    line = read(b'{"host": "web", "message": "m", "timestamp": "2020-01-01T00:00:00Z"}')
    assert (line.time, line.claimed) == (NOW, datetime(2020, 1, 1, tzinfo=UTC))


def test_a_line_of_syslog_is_read_as_the_receiver_reads_it() -> None:
    line = read(b"<27>1 2026-03-01T11:59:59Z web-01 nginx 812 - - no space left\n")
    assert (line.host, line.app, line.severity, line.message) == ("web-01", "nginx", "err", "no space left")


def test_json_without_a_message_is_kept_as_it_came() -> None:
    line = read(b'{"a": 1}')
    assert (line.host, line.message, line.raw) == ("relay", '{"a": 1}', '{"a": 1}')


@given(st.binary(max_size=60) | st.recursive(st.none() | st.text(), st.lists, max_leaves=3).map(orjson.dumps))
def test_whatever_the_bytes_they_become_a_line(data: bytes) -> None:
    assert read(data).received == NOW
    assert read(b"{" + data).received == NOW
