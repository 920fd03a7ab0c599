"""Texts with values in them: `CPU of {{ labels.host }} at {{ value:.1f }} %`.

Inside the braces stands a name, or a name with a path behind it (`labels.host`, `context.top.name`), then if need be
a format as Python has it (`{{ value:.1f }}`) or one of Prometheus's filters (`{{ value | humanize1024 }}`).
Prometheus's `$value` and `$labels.host` mean the same. What can be wrong is found when the template is made; a label
or a context that is not there reads as nothing.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from processors.durations import format_duration
from processors.paths import MISSING, Path

# name -> a value of the type it has, to try a format on; None where a path follows that only an alarm can tell.
NAMES: Final[Mapping[str, Any]] = {
    "value": 1.0,
    "threshold": 1.0,
    "clear": 1.0,
    "peak": 1.0,
    "first_value": 1.0,
    "metric": "",
    "comparison": "",
    "rule": "",
    "state": "",
    "severity": "",
    "since": "",  # UTC
    "started": "",  # UTC
    "duration": "",  # from the start to this change
    "for": "",
    "labels": None,
    "context": None,
}

_TAG: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_INSIDE: Final = re.compile(
    r"\s*\$?(?P<name>[A-Za-z_]\w*)(?:\.(?P<path>[\w.-]+))?\s*(?::(?P<format>[^|{}]*))?(?:\|\s*(?P<filter>\w+)\s*)?"
)


def format_number(value: float) -> str:
    """As a person writes it: at most two decimals, no zeros behind them."""
    if value == 0 or abs(value) >= 0.01:
        return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) < 1e15 else f"{value:.6g}"
    return f"{value:.2g}"


def _humanize(value: float, base: int, prefixes: str) -> str:
    for prefix in ("", *prefixes):
        if abs(value) < base or prefix == prefixes[-1]:
            return f"{format_number(value)} {prefix}{'i' if base == 1024 and prefix else ''}".rstrip()
        value /= base
    raise AssertionError("unreachable")


FILTERS: Final[Mapping[str, Callable[[float], str]]] = {
    "humanize": lambda value: _humanize(value, 1000, "kMGTPEZY"),
    "humanize1024": lambda value: _humanize(value, 1024, "KMGTPEZY"),
    "humanizePercentage": lambda value: f"{format_number(value * 100)}%",
    "humanizeDuration": lambda value: format_duration(round(value * 1000)),  # of seconds
}


class Template:
    """A text with holes.

    Raises:
        ValueError: braces without their partner, a name, filter or format that does not exist.
    """

    __slots__ = ("_parts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: list[str | Callable[[Mapping[str, Any]], str]] = []
        position = 0
        for tag in _TAG.finditer(text):
            self._parts += [self._literal(text[position : tag.start()]), _hole(tag[1])]
            position = tag.end()
        self._parts.append(self._literal(text[position:]))

    @staticmethod
    def _literal(text: str) -> str:
        for braces in ("{{", "}}"):
            if braces in text:
                raise ValueError(f"{braces} without its partner in {text!r}")
        return text

    def render(self, values: Mapping[str, Any]) -> str:
        """The text; `values` gives every name of NAMES."""
        return "".join(part if isinstance(part, str) else part(values) for part in self._parts)


def _hole(inside: str) -> Callable[[Mapping[str, Any]], str]:
    match = _INSIDE.fullmatch(inside)
    shown = f"{{{{{inside}}}}}"
    if match is None:
        raise ValueError(
            f"{shown} is not understood: write {{{{ value }}}}, {{{{ labels.host }}}} or {{{{ value:.1f }}}}"
        )
    name = match["name"]
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(NAMES)}"
        raise ValueError(f"{shown} names {name!r}, which no alarm has: {hint}")
    if (NAMES[name] is None) is not (match["path"] is not None):
        example = "labels.host" if NAMES[name] is None else name
        raise ValueError(f"{shown} has no such part: write {{{{ {example} }}}}")
    label = match["path"] if name == "labels" else None
    path = Path(match["path"]) if match["path"] and name != "labels" else None
    show = _shower(shown, NAMES[name], (match["format"] or "").strip(), match["filter"])

    def fill(values: Mapping[str, Any]) -> str:
        value = values.get(name)
        if label is not None:
            value = (value or {}).get(label)
        elif path is not None:
            value = path.read(value)[0][1]
        return "" if value is None or value is MISSING else show(value)

    return fill


def _shower(shown: str, sample: Any, format_: str, filter_: str | None) -> Callable[[Any], str]:
    if format_ and filter_:
        raise ValueError(f"{shown} has both a format and a filter: keep one")
    if filter_:
        if filter_ not in FILTERS:
            near = difflib.get_close_matches(filter_, FILTERS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(FILTERS)}"
            raise ValueError(f"{shown} uses the filter {filter_!r}, which does not exist: {hint}")
        if isinstance(sample, str):
            raise ValueError(f"{shown}: {filter_} is for numbers")
        humanize = FILTERS[filter_]
        return lambda value: humanize(value) if _is_number(value) else str(value)
    if format_:
        if sample is not None:
            try:
                format(sample, format_)
            except ValueError as error:
                raise ValueError(f"{shown}: {error}") from None
        return lambda value: _formatted(value, format_)
    return lambda value: format_number(value) if _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _formatted(value: Any, format_: str) -> str:
    # Only a label or a context can still refuse a format: its type is known by the alarm alone.
    try:
        return format(value, format_)
    except (ValueError, TypeError):
        return str(value)
