"""Syslog lines as devices, daemons and noise send them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.health_monitoring.models import FACILITIES, SEVERITIES, LogLine
from apps.health_monitoring.syslog_parser import CLOCK_AHEAD_MAX, CLOCK_BEHIND_MAX, parse

NOW = datetime(2026, 10, 11, 22, 14, 20, tzinfo=UTC)


def line_of(text: str | bytes, received: datetime = NOW, sender: str = "192.0.2.7", **options: object) -> LogLine:
    data = text.encode() if isinstance(text, str) else text
    return parse(data, sender, received, zone=UTC, **options)  # type: ignore[arg-type]


def test_the_example_of_rfc_3164_is_read() -> None:
    line = line_of("<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8")
    assert (line.host, line.facility, line.severity, line.app) == ("mymachine", "auth", "crit", "su")
    assert line.message == "'su root' failed for lonvick on /dev/pts/8"
    assert line.time == datetime(2026, 10, 11, 22, 14, 15, tzinfo=UTC)
    assert line.format == "rfc3164"
    assert line.raw is None


def test_the_examples_of_rfc_5424_are_read() -> None:
    old = {"check_clock": False}
    first = line_of(
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \ufeff'su root' failed on /dev/pts/8", **old
    )
    assert (first.host, first.app, first.pid, first.message_id) == ("mymachine", "su", None, "ID47")
    assert first.message == "'su root' failed on /dev/pts/8"
    assert first.time == datetime(2003, 10, 11, 22, 14, 15, 3000, tzinfo=UTC)
    second = line_of("<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make", **old)
    assert (second.host, second.pid) == ("192.0.2.1", "8710")
    assert second.time == datetime(2003, 8, 24, 12, 14, 15, 3, tzinfo=UTC)
    third = line_of(
        '<165>1 2003-10-11T22:14:15.003Z mymachine evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="App\\"1\\]"]'
        '[examplePriority@32473 class="high"] An application',
        **old,
    )
    assert third.structured == {
        "exampleSDID@32473": {"iut": "3", "eventSource": 'App"1]'},
        "examplePriority@32473": {"class": "high"},
    }
    assert third.message == "An application"
    assert third.format == "rfc5424"


@pytest.mark.parametrize(
    ("text", "host", "app", "pid", "message"),
    [
        ("<13>Oct 11 22:14:15 web-01 nginx[812]: upstream timed out", "web-01", "nginx", "812", "upstream timed out"),
        ("<13>Oct 11 22:14:15 nginx[812]: no host", "192.0.2.7", "nginx", "812", "no host"),
        ("<13>Oct 11 22:14:15 cron: no host", "192.0.2.7", "cron", None, "no host"),
        ("<13>2026-10-11T22:14:15.123456+00:00 web-01 sshd[1]: rsyslog", "web-01", "sshd", "1", "rsyslog"),
        ("<13>Oct 11 2026 22:14:15.250 UTC: %SYS-5-CONFIG_I: by", "192.0.2.7", "%SYS-5-CONFIG_I", None, "by"),
        ("<13>*Oct 11 22:14:15: %LINK-3-UPDOWN: down", "192.0.2.7", None, None, "%LINK-3-UPDOWN: down"),
        ("<13>Oct 11 22:14:15 2026 fw-1 kernel: DROP", "fw-1", "kernel", None, "DROP"),
        ("<13>Oct 11 22:14:15 fe80::1 kernel: DROP", "fe80::1", "kernel", None, "DROP"),
        ("<13>myapp[7]: only a tag", "192.0.2.7", "myapp", "7", "only a tag"),
        ("<13>only words", "192.0.2.7", None, None, "only words"),
        ("<13>see http://x: y", "192.0.2.7", None, None, "see http://x: y"),
        ("<13>Oct 11 22:14:15 tv Plex Media Server[77]: hi", "tv", "Plex Media Server", "77", "hi"),
        ("Oct 11 22:14:15 web-01 app: without priority", "web-01", "app", None, "without priority"),
        ("<13>", "192.0.2.7", None, None, ""),
        ("<13>Oct 11 22:14:15", "192.0.2.7", None, None, ""),
    ],
)
def test_what_devices_send_in_the_name_of_rfc_3164(
    text: str, host: str, app: str | None, pid: str | None, message: str
) -> None:
    line = line_of(text)
    if app and app.startswith("%"):  # a Cisco mnemonic stays part of the message
        app, message = None, f"{app}: {message}"
    assert (line.host, line.app, line.pid, line.message) == (host, app, pid, message)
    assert line.format == "rfc3164"
    assert line.severity == "notice"


@pytest.mark.parametrize(
    "text", ["", "no priority at all", "<999>too large", "<>", "<13", "<-1>x", "<13>1 this is not rfc 5424", "\x00"]
)
def test_what_cannot_be_read_is_kept_as_it_came(text: str) -> None:
    line = line_of(text)
    assert line.format == "raw"
    assert line.raw == text.rstrip("\x00")
    assert (line.host, line.time, line.received) == ("192.0.2.7", NOW, NOW)


def test_a_line_without_a_year_gets_the_nearest_one() -> None:
    new_year = datetime(2027, 1, 1, 0, 0, 5, tzinfo=UTC)
    assert line_of("<13>Dec 31 23:59:58 a b: c", new_year).time == datetime(2026, 12, 31, 23, 59, 58, tzinfo=UTC)
    old_year = datetime(2026, 12, 31, 23, 59, 58, tzinfo=UTC)
    assert line_of("<13>Jan  1 00:00:05 a b: c", old_year).time == datetime(2027, 1, 1, 0, 0, 5, tzinfo=UTC)


def test_a_day_that_no_year_nearby_has_falls_back_to_the_time_of_arrival() -> None:
    line = line_of("<13>Feb 30 10:00:00 a b: c")
    assert (line.time, line.claimed, line.host, line.app) == (NOW, None, "a", "b")


def test_a_time_without_a_zone_is_in_the_zone_that_was_asked_for() -> None:
    line = parse(b"<13>Oct 11 17:14:15 a b: c", "x", NOW, zone=timezone(timedelta(hours=-5)))
    assert line.time == datetime(2026, 10, 11, 22, 14, 15, tzinfo=UTC)


@pytest.mark.parametrize("years", [-30, -1, 1, 50])
def test_a_clock_that_is_off_by_years_is_not_believed_but_remembered(years: int) -> None:
    claimed = NOW.replace(year=NOW.year + years)
    line = line_of(f"<13>1 {claimed.isoformat()} a b - - - c")
    assert (line.time, line.claimed) == (NOW, claimed)


def test_a_clock_within_the_bounds_is_believed() -> None:
    for claimed in (NOW + CLOCK_AHEAD_MAX, NOW - CLOCK_BEHIND_MAX):
        line = line_of(f"<13>1 {claimed.isoformat()} a b - - - c")
        assert (line.time, line.claimed) == (claimed, None)


def test_a_recording_keeps_its_old_times() -> None:
    line = line_of("<13>1 2003-10-11T22:14:15Z a b - - - c", check_clock=False)
    assert line.time == datetime(2003, 10, 11, 22, 14, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    "time", ["-", "2026-13-40T99:99:99Z", "0000-00-00T00:00:00Z", "9999-12-31T23:59:59-12:00", "yesterday"]
)
def test_an_impossible_time_in_rfc_5424_costs_nothing_but_the_time(time: str) -> None:
    line = line_of(f"<13>1 {time} web-01 app 7 ID - text")
    assert (line.format, line.host, line.app, line.message, line.time) == ("rfc5424", "web-01", "app", "text", NOW)


def test_a_parameter_that_comes_several_times_keeps_all_its_values() -> None:
    line = line_of('<13>1 - a b - - [origin ip="192.0.2.1" ip="192.0.2.129" ip="x"] c')
    assert line.structured == {"origin": {"ip": ["192.0.2.1", "192.0.2.129", "x"]}}


def test_bytes_that_are_no_utf_8_stay_readable() -> None:
    assert line_of(b"<13>Oct 11 22:14:15 a b: caf\xe9 \xff").message == "caf\\xe9 \\xff"


def test_an_end_of_line_is_no_part_of_the_message() -> None:
    assert line_of(b"<13>Oct 11 22:14:15 a b: c\r\n\x00").message == "c"


def test_a_truncated_message_says_so() -> None:
    assert line_of("<13>Oct 11 22:14:15 a b: c", truncated=True).truncated


@given(st.binary(max_size=300))
def test_any_bytes_become_a_line_that_survives_its_own_json(data: bytes) -> None:
    line = line_of(data)
    assert LogLine.loads(line.dumps()) == line
    assert line.host


@given(
    st.sampled_from([b"<13>", b"<13>1 ", b"<13>Oct 11 ", b"<13>1 - - - - - [", b"<13>2026-10-11T"]),
    st.binary(max_size=80),
)
def test_a_good_beginning_with_a_bad_end_becomes_a_line(start: bytes, rest: bytes) -> None:
    line = line_of(start + rest)
    assert LogLine.loads(line.dumps()) == line


word = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).filter(lambda w: w != "-")
sd_name = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='="]'), min_size=1, max_size=10)
no_end = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r\n\ufeff"), max_size=60)
moment = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))
priority = st.integers(0, 191)


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


@given(priority, moment, st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True), word, word, word, no_end,
       st.dictionaries(sd_name, st.dictionaries(sd_name, no_end, max_size=3), max_size=3))  # fmt: skip
def test_reading_inverts_writing_rfc_5424(
    pri: int,
    time: datetime,
    host: str,
    app: str,
    pid: str,
    message_id: str,
    message: str,
    data: dict[str, dict[str, str]],
) -> None:
    elements = [
        "".join([f"[{name}", *(f' {k}="{escaped(v)}"' for k, v in it.items()), "]"]) for name, it in data.items()
    ]
    stamp = time.isoformat()
    text = f"<{pri}>1 {stamp} {host} {app} {pid} {message_id} {''.join(elements) or '-'} {message}"
    line = line_of(text, check_clock=False)
    assert line.format == "rfc5424"
    assert (line.facility, line.severity) == (FACILITIES[pri // 8], SEVERITIES[pri % 8])
    assert (line.time, line.host, line.app, line.pid, line.message_id) == (time, host, app, pid, message_id)
    assert line.message == message
    assert line.structured == data


@given(priority, moment, st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
       st.from_regex(r"[a-z][a-z0-9/_-]{0,20}", fullmatch=True),
       st.none() | st.integers(0, 1 << 22), no_end)  # fmt: skip
def test_reading_inverts_writing_rfc_3164(
    pri: int, time: datetime, host: str, app: str, pid: int | None, message: str
) -> None:
    time = time.replace(microsecond=0)
    tag = app if pid is None else f"{app}[{pid}]"
    text = f"<{pri}>{time:%b} {time.day:2d} {time:%H:%M:%S} {host} {tag}: {message}"
    line = line_of(text, received=time + timedelta(seconds=3), check_clock=False)
    assert line.format == "rfc3164"
    assert (line.facility, line.severity) == (FACILITIES[pri // 8], SEVERITIES[pri % 8])
    assert (line.time, line.host, line.app) == (time, host, app)
    assert line.pid == (None if pid is None else str(pid))
    assert line.message == message
