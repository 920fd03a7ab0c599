"""Readers and writers of one structure in one version, compiled from its schema to Python.

A generated function does what a hand-written one would: fields of fixed size that follow each other are one `struct`
call, and nothing asks for a version at run time. Lengths are checked against what is there before anything is made of
them, so that a hostile count costs nothing.
"""

import struct
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from streamcore.protocol import primitives
from streamcore.protocol.schema import Field

Reader = Callable[[memoryview, int, int], tuple[Any, int]]  # (buffer, position, end) -> (structure, position)
Writer = Callable[[Any, bytearray], None]

_FIXED = {
    "bool": "?", "int8": "b", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "float64": "d",
}  # fmt: skip
_SIZES = {code: struct.calcsize(">" + code) for code in _FIXED.values()}
_NO_UUID = UUID(int=0)


class Structure:
    """A structure of a message: its class, and what reads and writes it in each version."""

    def __init__(self, name: str, fields: list[Field], flexible_from: int, parts: "dict[str, Structure]") -> None:
        """`parts` are the structures of the fields that have one, by the fields' names."""
        self.fields = fields
        self.flexible_from = flexible_from
        self.parts = parts
        self.type = msgspec.defstruct(name, [(f.name, Any, _default_of(f)) for f in fields])
        self._readers: dict[int, Reader] = {}
        self._writers: dict[int, Writer] = {}

    def reader(self, version: int) -> Reader:
        found = self._readers.get(version)
        if found is None:
            found = self._readers[version] = _compile_reader(self, version)
        return found

    def writer(self, version: int) -> Writer:
        found = self._writers.get(version)
        if found is None:
            found = self._writers[version] = _compile_writer(self, version)
        return found

    def is_flexible(self, version: int) -> bool:
        return version >= self.flexible_from

    def least_bytes(self, version: int) -> int:
        """The size of the shortest such structure."""
        flexible = self.is_flexible(version)
        return sum(
            _least_bytes(field, self, version, flexible)
            for field in self.fields
            if field.is_in(version) and field.tag is None
        ) + (1 if flexible else 0)


def _least_bytes(field: Field, owner: Structure, version: int, flexible: bool) -> int:
    if field.is_array:
        return 1 if flexible else 4
    if field.type in _FIXED:
        return _SIZES[_FIXED[field.type]]
    if field.type == "uuid":
        return 16
    if field.is_structure:
        return 1 if field.is_nullable(version) else owner.parts[field.name].least_bytes(version)
    if flexible:
        return 1
    return 2 if field.type == "string" else 4


def _default_of(field: Field) -> Any:
    if field.default is not ...:
        if field.is_array and field.default is not None:
            raise ValueError(f"{field.name}: an array's default is [] or null")
        return field.default
    if field.is_array:
        return msgspec.field(default_factory=list)
    if field.is_structure:
        return None
    if field.type == "string":
        return ""
    if field.type in ("bytes", "records"):
        return b""
    if field.type == "uuid":
        return _NO_UUID
    return False if field.type == "bool" else 0.0 if field.type == "float64" else 0


def _default_literal(field: Field) -> str:
    default = _default_of(field)
    if field.is_array and default is not None:
        return "[]"
    return "NO_UUID" if field.type == "uuid" else repr(default)


class _Source:
    """Lines of a function to be, and the names that they use."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"NO_UUID": _NO_UUID, "UUID": UUID, **primitives.FUNCTIONS}

    def add(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)

    def name(self, prefix: str, value: Any) -> str:
        """A name for a value that the function uses."""
        name = f"{prefix}{len(self.names)}"
        self.names[name] = value
        return name

    def build(self, title: str, header: str, function: str) -> Any:
        text = header + "\n" + "\n".join(self.lines) + "\n"
        exec(compile(text, f"<streamcore.protocol {title}>", "exec"), self.names)
        return self.names[function]


# -- reading -----------------------------------------------------------------------------------------------------------


def _compile_reader(owner: Structure, version: int) -> Reader:
    source = _Source()
    flexible = owner.is_flexible(version)
    present = [f for f in owner.fields if f.is_in(version)]
    run: list[Field] = []
    for field in present:
        if field.tag is not None:
            continue
        if field.type in _FIXED and not field.is_array:
            run.append(field)
            continue
        _read_run(source, run)
        _read_field(source, 1, field, owner, version, flexible)
    _read_run(source, run)
    for field in owner.fields:
        if field not in present or field.tag is not None:
            source.add(1, f"f_{field.name} = {_default_literal(field)}")
    if flexible:
        _read_tags(source, [f for f in present if f.tag is not None], owner, version)
    arguments = ", ".join(f"f_{field.name}" for field in owner.fields)
    source.add(1, f"return {source.name('Type', owner.type)}({arguments}), p")
    name = owner.type.__name__
    reader: Reader = source.build(f"reader of {name} v{version}", "def read(b, p, e):", "read")
    return reader


def _read_run(source: _Source, run: list[Field]) -> None:
    """Fields of fixed size, one after the other."""
    if run:
        codes = "".join(_FIXED[f.type] for f in run)
        packer = struct.Struct(">" + codes)
        unpack = source.name("unpack", packer.unpack_from)
        source.add(1, f"{', '.join(f'f_{f.name}' for f in run)}, = {unpack}(b, p)")
        source.add(1, f"p += {packer.size}")
        source.add(1, "if p > e: raise short()")
        run.clear()


def _read_field(source: _Source, depth: int, field: Field, owner: Structure, version: int, flexible: bool) -> None:
    target = f"f_{field.name}"
    nullable = field.is_nullable(version)
    compact = "compact_" if flexible else ""
    if field.is_array:
        least = 1
        if field.is_structure:
            least = max(1, owner.parts[field.name].least_bytes(version))
        elif field.type in _FIXED:
            least = _SIZES[_FIXED[field.type]]
        elif field.type == "uuid":
            least = 16
        source.add(depth, f"n, p = read_{compact}count(b, p, e, {least})")
        source.add(depth, "if n < 0:")
        source.add(depth + 1, f"{target} = None" if nullable else "raise null()")
        source.add(depth, "else:")
        if field.type in _FIXED:
            code = _FIXED[field.type]
            source.add(depth + 1, f"{target} = list(unpack_from(f'>{{n}}{code}', b, p))")
            source.add(depth + 1, f"p += n * {_SIZES[code]}")
            return
        source.add(depth + 1, f"{target} = []")
        source.add(depth + 1, "for _ in range(n):")
        if field.is_structure:
            call = f"{source.name('read_part', owner.parts[field.name].reader(version))}(b, p, e)"
        elif field.type == "uuid":
            call = "read_uuid(b, p, e)"
        else:
            call = f"read_{compact}{field.type}(b, p, e)"
        source.add(depth + 2, f"x, p = {call}")
        source.add(depth + 2, f"{target}.append(x)")
    elif field.is_structure:
        call = f"{source.name('read_part', owner.parts[field.name].reader(version))}(b, p, e)"
        if nullable:
            source.add(depth, "p += 1")
            source.add(depth, "if p > e: raise short()")
            source.add(depth, f"if b[p - 1] > 127: {target} = None")
            source.add(depth, f"else: {target}, p = {call}")
        else:
            source.add(depth, f"{target}, p = {call}")
    elif field.type == "uuid":
        source.add(depth, f"{target}, p = read_uuid(b, p, e)")
    elif field.type in _FIXED:
        packer = struct.Struct(">" + _FIXED[field.type])
        source.add(depth, f"{target}, = {source.name('unpack', packer.unpack_from)}(b, p)")
        source.add(depth, f"p += {packer.size}")
        source.add(depth, "if p > e: raise short()")
    else:
        kind = "bytes" if field.type == "records" else field.type
        source.add(depth, f"{target}, p = read_{'nullable_' if nullable else ''}{compact}{kind}(b, p, e)")


def _read_tags(source: _Source, tagged: list[Field], owner: Structure, version: int) -> None:
    source.add(1, "n = b[p]")
    source.add(1, "if n == 0:")
    source.add(2, "p += 1")
    source.add(2, "if p > e: raise short()")
    source.add(1, "else:")
    source.add(2, "n, p = read_uvarint(b, p, e)")
    source.add(2, "outer = e")
    source.add(2, "for _ in range(n):")
    source.add(3, "t, p = read_uvarint(b, p, outer)")
    source.add(3, "size, p = read_uvarint(b, p, outer)")
    source.add(3, "e = after = p + size")
    source.add(3, "if after > outer: raise short()")
    for index, field in enumerate(tagged):
        source.add(3, f"{'if' if index == 0 else 'elif'} t == {field.tag}:")
        _read_field(source, 4, field, owner, version, True)
    # Whatever a newer client has put there, and bytes behind what is known, are passed over.
    source.add(3, "p = after")
    source.add(2, "e = outer")


# -- writing -----------------------------------------------------------------------------------------------------------


def _compile_writer(owner: Structure, version: int) -> Writer:
    source = _Source()
    flexible = owner.is_flexible(version)
    present = [f for f in owner.fields if f.is_in(version)]
    run: list[Field] = []
    for field in present:
        if field.tag is not None:
            continue
        if field.type in _FIXED and not field.is_array:
            run.append(field)
            continue
        _write_run(source, run)
        _write_field(source, 1, field, owner, version, flexible, "out")
    _write_run(source, run)
    if flexible:
        _write_tags(source, [f for f in present if f.tag is not None], owner, version)
    if not source.lines:
        source.add(1, "pass")
    name = owner.type.__name__
    writer: Writer = source.build(f"writer of {name} v{version}", "def write(o, out):", "write")
    return writer


def _write_run(source: _Source, run: list[Field]) -> None:
    if run:
        pack = source.name("pack", struct.Struct(">" + "".join(_FIXED[f.type] for f in run)).pack)
        source.add(1, f"out += {pack}({', '.join(f'o.{f.name}' for f in run)})")
        run.clear()


def _write_field(
    source: _Source, depth: int, field: Field, owner: Structure, version: int, flexible: bool, out: str
) -> None:
    value = f"o.{field.name}"
    nullable = field.is_nullable(version)
    compact = "compact_" if flexible else ""
    if field.is_array:
        source.add(depth, f"x = {value}")
        if nullable:
            source.add(depth, f"if x is None: write_{compact}null_count({out})")
            source.add(depth, "else:")
            depth += 1
        source.add(depth, f"write_{compact}count(len(x), {out})")
        if field.type in _FIXED:
            source.add(depth, f"{out} += pack_into(f'>{{len(x)}}{_FIXED[field.type]}', *x)")
            return
        if field.is_structure:
            part = source.name("write_part", owner.parts[field.name].writer(version))
            source.add(depth, f"for y in x: {part}(y, {out})")
        elif field.type == "uuid":
            source.add(depth, f"for y in x: {out} += y.bytes")
        else:
            source.add(depth, f"for y in x: write_{compact}{field.type}(y, {out})")
    elif field.is_structure:
        call = f"{source.name('write_part', owner.parts[field.name].writer(version))}({value}, {out})"
        if nullable:
            source.add(depth, f"if {value} is None: {out}.append(255)")
            source.add(depth, "else:")
            source.add(depth + 1, f"{out}.append(1)")
            source.add(depth + 1, call)
        else:
            source.add(depth, call)
    elif field.type == "uuid":
        source.add(depth, f"{out} += {value}.bytes")
    elif field.type in _FIXED:
        source.add(depth, f"{out} += {source.name('pack', struct.Struct('>' + _FIXED[field.type]).pack)}({value})")
    else:
        source.add(depth, f"write_{'nullable_' if nullable else ''}{compact}{field.type}({value}, {out})")


def _write_tags(source: _Source, tagged: list[Field], owner: Structure, version: int) -> None:
    if not tagged:
        source.add(1, "out.append(0)")
        return
    source.add(1, "tags = []")
    for field in sorted(tagged, key=lambda field: field.tag or 0):
        default = _default_literal(field)
        value = f"o.{field.name}"
        test = f"{value} is not None" if default == "None" else f"{value} != {default}"
        source.add(1, f"if {test}:")
        source.add(2, "body = bytearray()")
        _write_field(source, 2, field, owner, version, True, "body")
        source.add(2, f"tags.append(({field.tag}, body))")
    source.add(1, "write_uvarint(len(tags), out)")
    source.add(1, "for tag, body in tags:")
    source.add(2, "write_uvarint(tag, out)")
    source.add(2, "write_uvarint(len(body), out)")
    source.add(2, "out += body")
