"""One record in every format, the odd ones too."""

from typing import NamedTuple

import click
import orjson
import pytest

from streamcore.cli.record_formats import formatter_for
from streamcore.types import TP

PLACE = TP("readings", 3)


class Record(NamedTuple):
    offset: int = 7
    timestamp: int = 1_700_000_000_000
    key: bytes | None = b"web-1"
    value: bytes | None = b'{"cpu": 91.25, "disk": {"sda": 3}, "top": ["a", "b"]}'
    headers: tuple[tuple[str, bytes], ...] = (("source", b"hand"),)


def show(form: str, record: Record | None = None) -> str:
    record = record or Record()
    return formatter_for(form, terminal=False)(PLACE, record).decode()


def test_text_has_a_field_per_tab():
    place, time, key, value, headers = show("text").rstrip("\n").split("\t")
    assert place == "3:7"
    assert time.endswith("13:20.000")
    assert (key, headers) == ("web-1", "source=hand")
    assert value.startswith('{"cpu"')


def test_text_lets_no_control_character_through():
    shown = show("text", Record(key=b"a\tb\n", value=b"\x1b[31mred\xff\x00", headers=(("h", b"\r"),)))
    assert "\x1b" not in shown
    assert shown.count("\t") == 4
    assert "\\x1b[31mred\\xff\\x00" in shown


def test_text_tells_null_from_empty():
    assert show("text", Record(key=None, value=b"", headers=())).split("\t")[2:] == ["(null)", "\n"]


def test_raw_is_the_value():
    assert show("raw", Record(value=b"plain")) == "plain\n"


def test_json_embeds_objects_and_keeps_text():
    shown = orjson.loads(show("json"))
    assert shown["value"]["cpu"] == 91.25
    assert shown["time"] == "2023-11-14T22:13:20.000Z"
    assert shown["headers"] == {"source": "hand"}
    assert orjson.loads(show("json", Record(value=b"17")))["value"] == "17"


def test_json_holds_bytes_that_are_no_text():
    assert orjson.loads(show("json", Record(value=b"\xff\x00")))["value"] == {"base64": "/wA="}


def test_json_keeps_a_header_that_comes_twice():
    shown = orjson.loads(show("json", Record(headers=(("a", b"1"), ("a", b"2")))))
    assert shown["headers"] == [["a", "1"], ["a", "2"]]


def test_a_template_reaches_into_json():
    assert show("{key} {value[cpu]:.1f} {value[disk][sda]} {value.top[1]} {headers[source]}") == "web-1 91.2 3 b hand\n"


def test_a_template_shows_missing_fields_as_a_dash():
    assert show("{value[ram]:.1f} {value[disk][sdb]} {headers[none]}") == "- - -\n"
    assert show("{value[cpu]}", Record(value=b"no json")) == "-\n"
    assert show("{value[cpu]}", Record(value=None)) == "-\n"


def test_a_template_knows_tabs_and_newlines():
    assert show("{partition}\\t{offset}\\n") == "3\t7\n\n"


@pytest.mark.parametrize(
    ("form", "part"),
    [
        ("{kye}", "Did you mean 'key'?"),
        ("{key", "no template"),
        ("jsn", "Did you mean 'json'?"),
        ("{foo}", "There are"),
    ],
)
def test_a_wrong_format_is_told_before_anything_is_read(form, part):
    with pytest.raises(click.UsageError, match=part.replace("?", r"\?")):
        formatter_for(form, terminal=False)
