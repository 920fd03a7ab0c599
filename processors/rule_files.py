"""Rules from YAML: every key known, every value of its type, every problem with its place."""

import difflib
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from processors.rules import Rule, RulesError, check_rules, expect

Scalar = str | int | float


class _ExpectSpec(msgspec.Struct, forbid_unknown_fields=True):
    every: Scalar
    grace: Scalar = 0


class _RuleSpec(msgspec.Struct, kw_only=True):
    """A rule as it stands in a file."""

    name: str
    expr: str | None = None
    metric: str | None = None
    above: float | None = None
    below: float | None = None
    clear: float | None = None
    clear_below: float | None = None
    clear_above: float | None = None
    for_: Scalar = msgspec.field(name="for", default=0)
    keep_firing_for: Scalar = 0
    expect: _ExpectSpec | Scalar | None = None
    forget_after: Scalar | None = None
    labels: dict[str, Scalar] = {}
    annotations: dict[str, str] = {}
    where: str | list[str] | dict[str, str] = ""


KEYS: Final = (*_RuleSpec.__struct_encode_fields__, "alert")  # `alert` is Prometheus's word for the name


def load_rules(source: str | Path, *, model: type | None = None) -> tuple[Rule, ...]:
    """Read rules.

    Args:
        source: a file, or the YAML text itself (anything with a line break in it).
        model: the type of the values the rules look at; a metric that it does not have is then an error.
    Raises:
        RulesError: the file cannot be read, or a rule cannot be meant as it is written. It names all problems.
    """
    if isinstance(source, str) and "\n" in source:
        text, where = source, "rules"
    else:
        where = str(source)
        try:
            text = Path(source).read_text(encoding="utf-8")
        except OSError as error:
            raise RulesError([f"cannot be read: {error.strerror or error}"], where) from error
        except UnicodeDecodeError as error:
            raise RulesError([f"is not UTF-8 text: {error.reason} at byte {error.start}"], where) from error
    return parse_rules(text, where, model=model)


def parse_rules(text: str, where: str = "rules", *, model: type | None = None) -> tuple[Rule, ...]:
    """Rules from YAML text; `where` names it in errors.

    Raises:
        RulesError: as `load_rules`.
    """
    try:
        document = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RulesError([f"is not YAML: {_one_line(error)}"], where) from error
    if isinstance(document, dict):
        unknown = [_unknown(str(key), ("rules",)) for key in document if key != "rules"]
        if unknown:
            raise RulesError(unknown, where)
        document = document.get("rules")
    if document is None:
        return ()
    if not isinstance(document, list):
        raise RulesError([f"rules is {_kind(document)}, not a list: begin each rule with - name: …"], where)
    rules: list[Rule] = []
    problems: list[str] = []
    for number, entry in enumerate(document, 1):
        try:
            rules.append(_rule(entry, number))
        except RulesError as error:
            problems += error.problems
    if problems:
        raise RulesError(problems, where)
    return check_rules(rules, model, where)


def _rule(entry: Any, number: int) -> Rule:
    if not isinstance(entry, dict):
        raise RulesError([f"rule {number} is {_kind(entry)}, not a mapping: begin it with - name: …"])
    entry = {str(key): value for key, value in entry.items()}
    title = f"rule {entry.get('name', entry.get('alert', number))!r}"
    problems = [f"{title}: {_unknown(key, KEYS)}" for key in entry if key not in KEYS]
    if "alert" in entry:
        if "name" in entry:
            problems.append(f"{title}: name and alert say the same: keep one of them")
        entry["name"] = entry.pop("alert")
    if "name" not in entry:
        problems.append(f"{title} has no name")
    if problems:
        raise RulesError(problems)
    try:
        spec = msgspec.convert(entry, _RuleSpec)
    except msgspec.ValidationError as error:
        raise RulesError([f"{title}: {_explained(str(error), entry)}"]) from error
    return Rule(
        spec.name,
        spec.expr,
        metric=spec.metric,
        above=spec.above,
        below=spec.below,
        clear=_clear(spec, title),
        for_=spec.for_,
        keep_firing_for=spec.keep_firing_for,
        expect=_expect(spec, title),
        forget_after=spec.forget_after,
        labels={label: str(value) for label, value in spec.labels.items()},
        annotations=spec.annotations,
        where=spec.where or (),
    )


def _clear(spec: _RuleSpec, title: str) -> float | None:
    """The clear level; a word that looks the wrong way is refused rather than turned round."""
    given = [word for word in ("clear", "clear_below", "clear_above") if getattr(spec, word) is not None]
    if len(given) > 1:
        raise RulesError([f"{title}: {' and '.join(given)} are both given: keep one of them"])
    looks_down = spec.below is not None or "<" in (spec.expr or "")
    if (wrong := "clear_below" if looks_down else "clear_above") in given:
        right = "clear_above" if looks_down else "clear_below"
        raise RulesError([f"{title}: {wrong} is where this alarm begins, not where it ends: use {right}"])
    return getattr(spec, given[0]) if given else None


def _expect(spec: _RuleSpec, title: str) -> Any:
    if not isinstance(spec.expect, _ExpectSpec):
        return spec.expect
    try:
        return expect(spec.expect.every, spec.expect.grace)
    except RulesError as error:
        raise RulesError([f"{title}: {problem}" for problem in error.problems]) from None


def _unknown(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"unknown key {key!r}: " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}")


_PLACE: Final = re.compile(r"(?P<text>.*?)(?: - at `\$\.?(?P<place>[^`]*)`)?", re.DOTALL)


def _explained(message: str, entry: dict[str, Any]) -> str:
    """msgspec's message with the key in front; it has `$.labels[...]` for the value of some label."""
    match = _PLACE.fullmatch(message)
    assert match is not None, "the pattern matches every text"
    place = (match["place"] or "").replace("[...]", "")
    text = match["text"].replace("`", "")
    if "unknown field" in text and (unknown := re.search(r"unknown field (\w+)", text)):
        return f"{place}: {_unknown(unknown[1], ('every', 'grace'))}"
    values = entry.get(place)
    if isinstance(values, dict) and any(isinstance(value, bool) for value in values.values()):
        text += " (YAML reads a bare yes, no, on and off as true and false: put the text in quotes)"
    return f"{place}: {text[:1].lower()}{text[1:]}" if place else text


def _kind(value: Any) -> str:
    kinds: dict[type, str] = {dict: "a mapping", list: "a list", str: "a text"}
    return kinds.get(type(value), f"{value!r}")


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is given twice is an error, not a silent choice of the later one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if not isinstance(key, Hashable):
                continue  # refused by the constructor itself
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
