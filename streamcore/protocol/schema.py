"""The table of messages, parsed: which fields a message has, in which versions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

NEVER = (1, 0)  # an empty range of versions
Versions = tuple[int, int]  # first and last, both included

PRIMITIVES = {
    "bool", "int8", "int16", "uint16", "int32", "uint32", "int64", "float64", "string", "uuid", "bytes", "records",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a structure."""

    name: str
    type: str  # a primitive, or the name of a structure
    is_array: bool
    versions: Versions
    nullable: Versions
    tag: int | None
    default: Any  # None for null; ... for the type's own default
    fields: "list[Field]" = field(default_factory=list)

    @property
    def is_structure(self) -> bool:
        return self.type not in PRIMITIVES

    def is_in(self, version: int) -> bool:
        return self.versions[0] <= version <= self.versions[1]

    def is_nullable(self, version: int) -> bool:
        return self.nullable[0] <= version <= self.nullable[1]


@dataclass(frozen=True, slots=True)
class ApiSchema:
    """A request and its response."""

    key: int
    name: str
    versions: Versions
    flexible_from: int
    request: list[Field] = field(default_factory=list)
    response: list[Field] = field(default_factory=list)


@cache
def api_schemas() -> dict[int, ApiSchema]:
    """Every message of the table, by API key."""
    lines = [
        line
        for line in files("streamcore.protocol").joinpath("messages.txt").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    return {schema.key: schema for schema in _parse(lines)}


def record_fields(text: str, versions: Versions) -> list[Field]:
    """The fields of a record that is kept in a topic, written as in the table of messages."""
    fields: list[Field] = []
    _parse_fields([line for line in text.splitlines() if line.strip()], 0, 0, versions, fields)
    return fields


def _parse(lines: list[str]) -> Iterator[ApiSchema]:
    index = 0
    while index < len(lines):
        key, name, versions, _, flexible = lines[index].split()
        span = _versions(versions, (0, 0))
        schema = ApiSchema(int(key), name, span, int(flexible.rstrip("+")) if flexible != "none" else 1 << 15)
        index += 1
        for kind, fields in (("request", schema.request), ("response", schema.response)):
            assert lines[index] == kind, lines[index]
            index = _parse_fields(lines, index + 1, 1, span, fields)
        yield schema


def _parse_fields(lines: list[str], index: int, depth: int, span: Versions, fields: list[Field]) -> int:
    indent = "  " * depth
    while index < len(lines) and lines[index].startswith(indent):
        found = _field(lines[index].strip(), span)
        fields.append(found)
        index = _parse_fields(lines, index + 1, depth + 1, found.versions, found.fields)
    return index


def _field(line: str, span: Versions) -> Field:
    words, _, default = line.partition(" = ")
    name, type_, *rest = words.split()
    tag: int | None = None
    if "tag" in rest:
        at = rest.index("tag")
        tag = int(rest[at + 1])
        del rest[at : at + 2]
    versions = _versions(rest[0], span) if rest else span
    type_, is_nullable, nullable = type_.partition("?")
    is_array = type_.startswith("[]")
    return Field(
        name,
        type_.removeprefix("[]"),
        is_array,
        versions,
        (_versions(nullable, versions) if nullable else versions) if is_nullable else NEVER,
        tag,
        _default(default) if default else ...,
    )


def _versions(text: str, span: Versions) -> Versions:
    first, _, last = text.partition("-")
    if text.endswith("+"):
        return int(text[:-1]), span[1]
    return int(first), int(last or first)


def _default(text: str) -> Any:
    if text == "null":
        return None
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text, 0)
    except ValueError:
        return text
