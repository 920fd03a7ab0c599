"""Label matchers as Prometheus and Alertmanager have them: `host="web-1"`, `env!="dev"`, `host=~"web-.*"`, `!~`."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

_MATCHER: Final = re.compile(
    r"""\s*(?P<label>[A-Za-z_][A-Za-z0-9_]*)\s*(?P<operator>=~|!~|!=|=)\s*(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s,"]+))\s*"""
)


class Matcher(NamedTuple):
    """One condition on one label; a label that is not there counts as empty."""

    label: str
    negated: bool
    pattern: re.Pattern[str] | str  # a regular expression is anchored at both ends

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.label, "")
        same = value == self.pattern if isinstance(self.pattern, str) else self.pattern.fullmatch(value) is not None
        return same is not self.negated


def parse_matchers(given: str | Sequence[str] | Mapping[str, str]) -> tuple[Matcher, ...]:
    """Matchers that must all agree.

    Args:
        given: `{host: web-1}` for equality, or matchers in Prometheus's notation, joined by commas or in a list.
    Raises:
        ValueError: not a matcher, or not a regular expression.
    """
    if isinstance(given, Mapping):
        return tuple(Matcher(label, False, value) for label, value in given.items())
    if isinstance(given, str):
        return _parse(given)
    return tuple(matcher for text in given for matcher in _parse(text))


def _parse(text: str) -> tuple[Matcher, ...]:
    matchers: list[Matcher] = []
    position = 0
    while True:
        match = _MATCHER.match(text, position)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            raise ValueError(f'{text!r} is not a label matcher: write host="web-1", host!="web-1" or host=~"web-.*"')
        value = match["quoted"] if match["quoted"] is not None else match["bare"]
        operator = match["operator"]
        try:
            pattern = re.compile(value) if "~" in operator else value
        except re.error as error:
            raise ValueError(f"{value!r} in {text!r} is not a regular expression: {error}") from None
        matchers.append(Matcher(match["label"], operator.startswith("!"), pattern))
        if match.end() == len(text):
            return tuple(matchers)
        position = match.end() + 1
