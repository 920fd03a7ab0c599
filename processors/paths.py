"""Where a rule finds its number: a dotted path into the value of an event.

`stats.cpu.mean` goes through fields of records and keys of mappings. `disks.*.percent` takes every element of the
mapping `disks` and names it with the label `disks`; `disks.{mount}.percent` calls that label `mount`.
"""

import difflib
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Final

import msgspec

MISSING: Final = object()

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_LABEL: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Path:
    """A parsed path.

    Raises:
        ValueError: not a path.
    """

    __slots__ = ("_steps", "labels", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        steps: list[str | None] = []  # None takes every element of a mapping
        labels: list[str] = []
        for part in text.split("."):
            braces = _LABEL.fullmatch(part)
            if part == "*" or braces:
                if braces is None and (not steps or steps[-1] is None):
                    raise ValueError(f"the * in {text!r} follows no name: write {{label}} instead to name its label")
                labels.append(braces[1] if braces else str(steps[-1]).replace("-", "_"))
                steps.append(None)
            elif _NAME.fullmatch(part):
                steps.append(part)
            else:
                raise ValueError(
                    f"{text!r} is not a path: write names joined by dots, as in stats.cpu.mean, "
                    "with * or {label} for every element"
                )
        if len(set(labels)) < len(labels):
            raise ValueError(f"two elements of {text!r} share the label {labels[0]!r}: name them with {{label}}")
        self._steps = tuple(steps)
        self.labels = tuple(labels)  # one for each *, in order

    def read(self, value: Any) -> list[tuple[tuple[str, ...], Any]]:
        """What the path leads to: `(the element of each label, what is there or MISSING)`.

        One entry without wildcards; with them one for each element, none where there is nothing to look into.
        """
        if not self.labels:
            for step in self._steps:
                value = _child(value, step)
                if value is MISSING or value is None:
                    return [((), MISSING)]
            return [((), value)]
        found: list[tuple[tuple[str, ...], Any]] = [((), value)]
        for step in self._steps:
            if step is None:
                found = [
                    ((*element, str(name)), child)
                    for element, node in found
                    if isinstance(node, Mapping)
                    for name, child in node.items()
                ]
            else:
                found = [(element, _child(node, step)) for element, node in found]
        return [(element, MISSING if node is None else node) for element, node in found]

    def problem_in(self, model: Any) -> str | None:
        """Why this path can lead to no number in values of the type `model`; None where it may."""
        where = getattr(model, "__name__", str(model))
        for step in self._steps:
            model = _plain(model)
            if model is Any:
                return None
            if typing.get_origin(model) in (dict, Mapping) or model in (dict, Mapping):
                model = (*typing.get_args(model), Any, Any)[1]
            elif step is None:
                return f"{where} is not a mapping, so it has no elements for *"
            elif isinstance(model, type) and issubclass(model, msgspec.Struct):
                fields = _fields(model)
                if step not in fields:
                    near = difflib.get_close_matches(step, fields, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(fields)}"
                    return f"{model.__name__} has no field {step!r}: {hint}"
                model = fields[step]
            else:
                return f"{where} has no fields, so there is no {step!r} in it"
            where = step or f"an element of {where}"
        model = _plain(model)
        if model in (int, float, bool, Any) or not isinstance(model, type):
            return None
        return f"{self.text} is of type {model.__name__}, not a number"

    def __repr__(self) -> str:
        return f"Path({self.text!r})"


def _child(node: Any, name: str | None) -> Any:
    if type(node) is dict:
        return node.get(name, MISSING)
    child = getattr(node, name or "", MISSING)
    if child is MISSING and isinstance(node, Mapping):
        return node.get(name, MISSING)
    return child


def _plain(model: Any) -> Any:
    """The type without None and Annotated; Any for what is not worth a guess."""
    if typing.get_origin(model) is typing.Annotated:
        return _plain(typing.get_args(model)[0])
    if typing.get_origin(model) in (typing.Union, types.UnionType):
        others = [one for one in typing.get_args(model) if one is not type(None)]
        return _plain(others[0]) if len(others) == 1 else Any
    return model


def _fields(model: type) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: hint for name, hint in typing.get_type_hints(model, include_extras=True).items() if name[0] != "_"
    }
    for name, member in inspect.getmembers(model, lambda member: isinstance(member, property)):
        if name[0] != "_":
            fields[name] = typing.get_type_hints(member.fget).get("return", Any)
    return fields
