"""Every message and version against kio, whose codec comes from Kafka's definitions: both ways, byte for byte."""

import io
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamcore.protocol.compiler import Structure
from streamcore.protocol.messages import APIS, Api
from streamcore.protocol.schema import Field

kio_serial = pytest.importorskip("kio.serial")
kio_index = pytest.importorskip("kio.index")

CASES = [
    pytest.param(api, version, kind, id=f"{api.name}-{version}-{kind}")
    for api in APIS.values()
    for version in range(api.first_version, api.last_version + 1)
    for kind in ("request", "response")
]
BITS = {"int8": 7, "int16": 15, "uint16": 16, "int32": 31, "uint32": 32, "int64": 63}
KNOWN_ERRORS = st.sampled_from([-1, 0, 1, 3, 10, 22, 35, 87, 119])
# kio makes durations of these, and enumerations of the others; their values are those that it takes.
DURATIONS = ("_ms",)


def values_of(field: Field) -> st.SearchStrategy[Any]:
    if field.name.endswith("error_code") and field.type == "int16":
        return KNOWN_ERRORS
    if field.type in ("int32", "int64") and field.name.endswith(DURATIONS):
        return st.integers(0, 2_000_000_000)
    if field.type in BITS:
        low = 0 if field.type.startswith("u") else -(1 << BITS[field.type])
        return st.integers(low, (1 << BITS[field.type]) - 1)
    if field.type == "bool":
        return st.booleans()
    if field.type == "float64":
        return st.floats(allow_nan=False)
    if field.type == "string":
        return st.text(max_size=200)
    if field.type == "uuid":
        return st.one_of(st.just(UUID(int=0)), st.uuids())
    return st.binary(max_size=300)


def objects(structure: Structure, version: int) -> st.SearchStrategy[Any]:
    def made(field: Field) -> st.SearchStrategy[Any]:
        one = objects(structure.parts[field.name], version) if field.is_structure else values_of(field)
        found: st.SearchStrategy[Any] = st.lists(one, max_size=2) if field.is_array else one
        if field.is_nullable(version) or (field.is_structure and not field.is_array and field.tag is not None):
            found = st.one_of(st.none(), found)
        return found

    return st.builds(structure.type, **{f.name: made(f) for f in structure.fields if f.is_in(version)})


def ours(api: Api, version: int, kind: str, value: Any) -> bytes:
    out = bytearray()
    (api.write_request if kind == "request" else api.write_response)(version, value, out)
    return bytes(out)


def plain(value: Any) -> Any:
    """Views of the buffer as bytes, so that two messages can be compared."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "__struct_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    return value


@pytest.mark.parametrize(("api", "version", "kind"), CASES)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_a_message_is_what_kio_reads_and_writes(api: Api, version: int, kind: str, data: st.DataObject) -> None:
    structure = api._structures[kind.capitalize()]
    value = data.draw(objects(structure, version))
    written = ours(api, version, kind, value)
    read = api.read_request if kind == "request" else api.read_response
    assert plain(read(version, memoryview(written))) == plain(value)
    theirs = (
        kio_index.load_request_schema(api.key, version)
        if kind == "request"
        else kio_index.load_response_schema(api.key, version)
    )
    reader, writer = kio_serial.entity_reader(theirs), kio_serial.entity_writer(theirs)
    entity, size = reader(written, 0)
    assert size == len(written)
    buffer = io.BytesIO()
    writer(buffer, entity)
    assert buffer.getvalue() == written
