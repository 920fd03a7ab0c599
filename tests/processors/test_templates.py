"""Texts of alarms."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.templates import Template, format_number

VALUES: dict[str, Any] = {
    "value": 96.456,
    "threshold": 95.0,
    "clear": None,
    "labels": {"host": "web-1", "mount.point": "/"},
    "context": {"top": {"name": "postgres", "cpu": 3.14159}},
    "rule": "DiskFull",
    "peak": 123456789.0,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("plain } text {", "plain } text {"),
        ("{{value}}", "96.46"),
        ("{{ $value }} of {{ $labels.host }}", "96.46 of web-1"),
        ("{{ value:.1f }} %", "96.5 %"),
        ("{{ threshold }}{{ clear }}!", "95!"),
        ("{{ peak | humanize }}", "123.46 M"),
        ("{{ peak | humanize1024 }}", "117.74 Mi"),
        ("{{ threshold | humanizeDuration }}", "1m35s"),
        ("{{ threshold | humanizePercentage }}", "9500%"),
        ("{{ context.top.name }} {{ context.top.cpu:.2f }} {{ context.top.name:.2f }}", "postgres 3.14 postgres"),
        ("{{ context.nothing.here }}{{ labels.nothing }}", ""),
        ("{{ rule:>10 }}", "  DiskFull"),
    ],
)
def test_holes_are_filled(template: str, text: str) -> None:
    assert Template(template).render(VALUES) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ valu }}", "did you mean 'value'"),
        ("{{ value", "without its partner"),
        ("value }}", "without its partner"),
        ("{{ }}", "is not understood"),
        ("{{ value + 1 }}", "is not understood"),
        ("{{ labels }}", "no such part"),
        ("{{ value.x }}", "no such part"),
        ("{{ value:.1z }}", "{{ value:.1z }}"),
        ("{{ value | humanise }}", "did you mean 'humanize'"),
        ("{{ rule | humanize }}", "is for numbers"),
        ("{{ value:.1f | humanize }}", "keep one"),
        ("{{ context.__class__ }}", "is not a path"),
    ],
)
def test_what_can_be_wrong_is_found_when_the_template_is_made(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("?", r"\?")):
        Template(template)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (95.0, "95"),
        (96.456, "96.46"),
        (-0.5, "-0.5"),
        (0.0, "0"),
        (0.0042, "0.0042"),
        (1e18, "1e+18"),
        (1234567, "1234567"),
    ],
)
def test_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    assert format_number(value) == text


@given(st.text())
def test_any_text_is_a_template_or_a_clear_error(text: str) -> None:
    try:
        template = Template(text)
    except ValueError as error:
        assert str(error)  # noqa: PT017
    else:
        template.render(VALUES)
