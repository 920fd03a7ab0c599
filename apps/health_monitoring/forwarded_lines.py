"""Log lines that another program put into a topic, such as rsyslog's omkafka: one line a record.

A record is a line as syslog has it (any of rsyslog's templates that look like one), or a JSON object with the message's
properties: those of `%jsonmesg%`, or of a template with everyday names.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from apps.health_monitoring.models import FACILITIES, SEVERITIES, LogLine, Severity, short_host
from apps.health_monitoring.syslog_parser import believed_time, parse

# A field of a line by the names it has in JSON, rsyslog's own first; fields that are not here stay in `structured`.
_NAMES: dict[str, tuple[str, ...]] = {
    "host": ("hostname", "host"),
    "time": ("timereported", "timestamp", "@timestamp", "time"),
    "severity": ("syslogseverity", "severity", "syslogseverity-text", "level"),
    "facility": ("syslogfacility", "facility", "syslogfacility-text"),
    "app": ("programname", "app-name", "app", "program"),
    "pid": ("procid", "pid"),
    "message_id": ("msgid",),
    "message": ("msg", "message"),
}
_NONE = "-"  # RFC 5424's word for nothing, which rsyslog's properties have too
_WORDS = {"panic": "emerg", "critical": "crit", "error": "err", "warn": "warning", "information": "info"}


def read_line(data: bytes, received: datetime, sender: str) -> LogLine:
    """One record's value; whatever it is, it becomes a line.

    Args:
        received: the record's time, which rsyslog sets when it sends it.
        sender: the line's host where it names none.
    """
    if data.lstrip()[:1] == b"{":
        try:
            fields = orjson.loads(data)
        except orjson.JSONDecodeError:
            pass  # text that begins with a brace
        else:
            return _from_fields(fields, data, received, sender)
    return parse(data, sender, received)


def _from_fields(fields: Mapping[str, Any], data: bytes, received: datetime, sender: str) -> LogLine:
    found = {field: _first(fields, names) for field, names in _NAMES.items()}
    line = LogLine(
        host=short_host(found["host"] or sender),
        time=received,
        received=received,
        facility=_facility(found["facility"]),
        severity=_severity(found["severity"]),
        app=found["app"],
        pid=found["pid"],
        message_id=found["message_id"],
        message=(found["message"] or "").strip(),
        format="json",
    )
    if found["message"] is None:
        line.raw = line.message = data.decode(errors="backslashreplace")
    stamp = _time(found["time"])
    if stamp is not None:
        line.time, line.claimed = believed_time(stamp, received)
    return line


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str | int | float) and str(value) not in ("", _NONE):
            return str(value)
    return None


def _severity(text: str | None) -> Severity:
    word = (text or "").lower()
    word = SEVERITIES[int(word)] if word.isascii() and word.isdigit() and int(word) < len(SEVERITIES) else word
    word = _WORDS.get(word, word)
    return next((severity for severity in SEVERITIES if severity == word), "notice")


def _facility(text: str | None) -> str:
    word = (text or "").lower()
    if word.isascii() and word.isdigit() and int(word) < len(FACILITIES):
        return FACILITIES[int(word)]
    return word if word in FACILITIES else "user"


def _time(text: str | None) -> datetime | None:
    """RFC 3339; a time without its zone is the machine's own, as everywhere in syslog."""
    try:
        stamp = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return stamp.astimezone(UTC)
