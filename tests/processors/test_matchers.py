"""Label matchers."""

from collections.abc import Sequence

import pytest

from processors.matchers import parse_matchers


@pytest.mark.parametrize(
    ("matchers", "yes", "no"),
    [
        ('host="web-1"', {"host": "web-1"}, {"host": "web-2"}),
        ("host=web-1", {"host": "web-1"}, {"host": "web-11"}),
        ('host!="web-1"', {}, {"host": "web-1"}),
        ('host=~"web-.*"', {"host": "web-1"}, {"host": "my-web-1"}),
        ('host!~"web-.*"', {"host": "my-web-1"}, {"host": "web-1"}),
        ('env=""', {}, {"env": "dev"}),
        ('host="a,b", env="dev"', {"host": "a,b", "env": "dev"}, {"host": "a,b"}),
        (['host="a"', "env!=dev"], {"host": "a"}, {"host": "a", "env": "dev"}),
        ({"host": "a"}, {"host": "a"}, {"host": "b"}),
    ],
)
def test_matchers_match_as_in_prometheus(
    matchers: str | Sequence[str] | dict[str, str], yes: dict[str, str], no: dict[str, str]
) -> None:
    parsed = parse_matchers(matchers)
    assert all(matcher.matches(yes) for matcher in parsed)
    assert not all(matcher.matches(no) for matcher in parsed)


@pytest.mark.parametrize("text", ["", "host", "host=", 'host="a" env="b"', 'host="a",', '="a"', "host~a"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a label matcher"):
        parse_matchers(text)


def test_a_broken_regular_expression_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a regular expression"):
        parse_matchers('host=~"web-("')
