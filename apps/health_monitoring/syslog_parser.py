"""Syslog bytes to log lines: RFC 3164 as it is sent in the wild, RFC 5424, and anything else kept as it came.

Pure: no socket, no clock. Whatever the bytes, `parse` returns a line and never raises.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from apps.health_monitoring.models import FACILITIES, SEVERITIES, LogLine, Severity, short_host

# A sender whose clock is further off is not believed: the line gets the time it arrived at, and keeps the claim.
# Ahead is tight, because a line from the future would make the lines that follow it late. Behind leaves room for a
# queue that was stuck for a while, and is less than the smallest difference between two time zones.
CLOCK_AHEAD_MAX = timedelta(minutes=1)
CLOCK_BEHIND_MAX = timedelta(minutes=10)

_PRI = re.compile(r"<(\d{1,3})>", re.ASCII)
_PRI_MAX = 191
_NO_PRI: tuple[str, Severity] = ("user", "notice")  # 13, what RFC 3164 (4.3.3) has a relay put in

_MONTHS = {name: number for number, name in enumerate(
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1)}  # fmt: skip
_ZONE = r"(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})"
# "Oct  1 22:14:15", with the variations that devices send: a star or dot before it (Cisco's unsynchronized clock), a
# year on either side, fractions, a zone, a colon after it.
_BSD_TIME = re.compile(
    r"[*.]?(?P<month>[A-Za-z]{3}) {1,2}(?P<day>\d{1,2})(?: (?P<year>\d{4}))?"
    r" (?P<hour>\d{2}):(?P<minute>\d{2}):(?P<second>\d{2})"
    rf"(?:[.,](?P<fraction>\d{{1,9}}))?(?: (?P<year_after>\d{{4}})(?= ))?(?: ?(?P<zone>{_ZONE})(?=[ :]|$))?:?(?: |$)",
    re.ASCII,
)
# RFC 3339, which RFC 5424 demands and rsyslog's forward format puts into RFC 3164's frame.
_ISO_TIME = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})[Tt](?P<hour>\d{2}):(?P<minute>\d{2}):(?P<second>\d{2})"
    rf"(?:\.(?P<fraction>\d{{1,9}}))?(?P<zone>{_ZONE})?(?= |$)",
    re.ASCII,
)
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._:%-]{0,253}[A-Za-z0-9_-])?(?= |$)", re.ASCII)
_TAG = re.compile(
    r"(?P<app>[A-Za-z0-9_./@-][A-Za-z0-9_./@ -]{0,63}?)(?:\[(?P<pid>[^\]\s]{1,128})\])?:(?: |$)", re.ASCII
)
_TAG_OPEN = re.compile(r"(?P<app>[A-Za-z0-9_./@-]{1,64})\[(?P<pid>[^\]\s]{1,128})\](?: |$)", re.ASCII)  # no colon

_RFC5424 = re.compile(
    r"1 (?P<time>\S{1,64}) (?P<host>\S{1,255}) (?P<app>\S{1,48}) (?P<pid>\S{1,128}) (?P<id>\S{1,32}) "
)
_SD_NAME = r'[^\s="\]\x00-\x20\x7f-\U0010ffff]{1,32}'
_SD_PARAM = re.compile(rf' +({_SD_NAME})="((?:[^"\\\]]|\\.)*)"', re.DOTALL)
_SD_OPEN = re.compile(rf"\[({_SD_NAME})")
_SD_ESCAPE = re.compile(r'\\(["\\\]])')
_BOM = "\ufeff"


def parse(
    data: bytes,
    sender: str,
    received: datetime,
    *,
    zone: tzinfo | None = None,
    check_clock: bool = True,
    truncated: bool = False,
) -> LogLine:
    """One message, without its frame.

    Args:
        sender: where it came from; the line's host where the message names none.
        received: when, in UTC.
        zone: of times that do not say theirs; the receiver's own by default, as rsyslog has it.
        check_clock: fall back to `received` where the sender's time is off by more than CLOCK_AHEAD_MAX or
            CLOCK_BEHIND_MAX; off for a recording, whose times are old by nature.
        truncated: the receiver cut the message.
    """
    text = _text(data)
    match = _PRI.match(text)
    has_pri = match is not None and int(match[1]) <= _PRI_MAX
    facility, severity = _priority(int(match[1])) if match is not None and has_pri else _NO_PRI
    rest = text[match.end() :] if match is not None and has_pri else text
    line = LogLine(
        host=short_host(sender),
        time=received,
        received=received,
        facility=facility,
        severity=severity,
        truncated=truncated,
    )
    stamp: datetime | None = None
    if has_pri and rest.startswith("1 "):
        if read := _read_5424(line, rest):
            stamp = read.stamp
        else:  # the version says RFC 5424, the rest does not
            line.format, line.raw, line.message = "raw", text, rest
    else:
        stamp, dated = _read_3164(line, rest, received, zone, has_pri)
        if not (has_pri or dated):
            line.format, line.raw, line.message = "raw", text, text
    if stamp is not None:
        line.time, line.claimed = believed_time(stamp, received) if check_clock else (stamp, None)
    return line


def believed_time(stamp: datetime, received: datetime) -> tuple[datetime, datetime | None]:
    """A line's time, and what its sender claims where that is not it: a clock that is far off is not believed."""
    if -CLOCK_BEHIND_MAX <= stamp - received <= CLOCK_AHEAD_MAX:
        return stamp, None
    return received, stamp


def _text(data: bytes) -> str:
    data = data.rstrip(b"\r\n\x00")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode(errors="backslashreplace")  # readable, and nothing is lost


def _priority(number: int) -> tuple[str, Severity]:
    return FACILITIES[number >> 3], SEVERITIES[number & 7]


class _Read:
    """That the text was of the form, and the time it claims."""

    __slots__ = ("stamp",)

    def __init__(self, stamp: datetime | None) -> None:
        self.stamp = stamp


def _read_5424(line: LogLine, rest: str) -> _Read | None:
    header = _RFC5424.match(rest)
    if header is None:
        return None
    read = _structured(rest, header.end())
    if read is None:
        return None
    structured, end = read
    line.format = "rfc5424"
    line.structured = structured
    line.message = rest[end + 1 :].removeprefix(_BOM)
    if (host := _value(header["host"])) is not None:
        line.host = short_host(host)
    line.app, line.pid, line.message_id = _value(header["app"]), _value(header["pid"]), _value(header["id"])
    stamp = _ISO_TIME.match(header["time"])
    # The header is worth having even where the time is none of RFC 3339's.
    return _Read(_from_iso(stamp, UTC) if stamp and stamp.end() == len(header["time"]) else None)


def _value(word: str) -> str | None:
    return None if word == "-" else word


def _structured(text: str, start: int) -> tuple[dict[str, dict[str, str | list[str]]], int] | None:
    """The structured data at `start` and where it ends, or None where it is not well formed."""
    if text.startswith("-", start):
        end = start + 1
        return ({}, end) if end == len(text) or text[end] == " " else None
    elements: dict[str, dict[str, str | list[str]]] = {}
    at = start
    while opened := _SD_OPEN.match(text, at):
        element = elements.setdefault(opened[1], {})
        at = opened.end()
        while parameter := _SD_PARAM.match(text, at):
            name, value = parameter[1], _SD_ESCAPE.sub(r"\1", parameter[2])
            before = element.get(name)
            # A name may come several times (RFC 5424, 6.3.3).
            element[name] = value if before is None else [*([before] if isinstance(before, str) else before), value]
            at = parameter.end()
        if not text.startswith("]", at):
            return None
        at += 1
    return (elements, at) if elements and (at == len(text) or text[at] == " ") else None


def _read_3164(
    line: LogLine, rest: str, received: datetime, zone: tzinfo | None, has_pri: bool
) -> tuple[datetime | None, bool]:
    """Fill `line`; the time it claims, and whether it had one at all."""
    stamp: datetime | None = None
    if bsd := _BSD_TIME.match(rest):
        stamp = _from_bsd(bsd, received, zone)
    iso = None if bsd else _ISO_TIME.match(rest)
    if iso:
        stamp = _from_iso(iso, zone)
    dated = bsd or iso
    at = 0
    if dated:
        at = min(dated.end() + (1 if iso else 0), len(rest))
        # "host tag: …"; where the first word ends like a tag there is no host (a local `logger`, most containers).
        host = _HOST.match(rest, at)
        if host and host.end() < len(rest) and not _TAG_OPEN.match(rest, at):
            line.host = short_host(host[0])
            at = host.end() + 1
    elif not has_pri:
        return None, False
    tag = _TAG.match(rest, at) or _TAG_OPEN.match(rest, at)
    # A tag is one word; with a pid we also take what has blanks in it ("Plex Media Server[77]:").
    if tag and (" " not in tag["app"] or tag["pid"]):
        line.app, line.pid = tag["app"], tag["pid"]
        at = tag.end()
    line.message = rest[at:].removeprefix(_BOM)
    return stamp, dated is not None


def _offset(text: str | None, zone: tzinfo | None) -> tzinfo | None:
    if text is None:
        return zone
    if text[0] not in "+-":
        return UTC
    digits = text[1:].replace(":", "")
    shift = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-shift if text[0] == "-" else shift)


def _from_iso(match: re.Match[str], zone: tzinfo | None) -> datetime | None:
    return _moment(int(match["year"]), int(match["month"]), match, zone)


def _from_bsd(match: re.Match[str], received: datetime, zone: tzinfo | None) -> datetime | None:
    month = _MONTHS.get(match["month"].lower())
    if month is None:
        return None
    if year := match["year"] or match["year_after"]:
        return _moment(int(year), month, match, zone)
    # No year: the one that brings it nearest, so that New Year's Eve does not move a line by twelve months.
    guesses = (_moment(received.year + shift, month, match, zone) for shift in (0, -1, 1))
    return min((guess for guess in guesses if guess), key=lambda guess: abs(guess - received), default=None)


def _moment(year: int, month: int, match: re.Match[str], zone: tzinfo | None) -> datetime | None:
    """In UTC; None where the calendar has no such moment."""
    second = min(int(match["second"]), 59)  # a leap second
    microsecond = int(match["fraction"][:6].ljust(6, "0")) if match["fraction"] else 0
    try:
        where = _offset(match["zone"], zone)
        when = datetime(
            year, month, int(match["day"]), int(match["hour"]), int(match["minute"]), second, microsecond, where
        )
        return when.astimezone(UTC)  # a naive time is taken as the receiver's own zone
    except (ValueError, OverflowError, OSError):
        return None
