"""Every message by its name, as an object whose version never matters to who uses it.

`messages.Fetch.Request`, `messages.Fetch.Response` and the structures inside (`messages.Fetch.PartitionData`) are
classes with every field of every version; a field that a version does not have is left out on the way out, and has its
default on the way in.
"""

import struct
from functools import cached_property
from typing import Any

from streamcore.protocol.compiler import Structure
from streamcore.protocol.errors import MalformedMessageError, UnsupportedVersionError
from streamcore.protocol.schema import ApiSchema, Field, api_schemas

API_VERSIONS_KEY = 18


class Api:
    """One API: its key, its versions, its classes."""

    def __init__(self, schema: ApiSchema) -> None:
        self.key = schema.key
        self.name = schema.name
        self.first_version, self.last_version = schema.versions
        self.flexible_from = schema.flexible_from
        self._schema = schema

    @cached_property
    def _structures(self) -> dict[str, Structure]:
        # Made on first use: a client speaks some 15 of these, and a broker has to be there at once.
        structures: dict[str, Structure] = {}
        self._add(structures, "Request", self._schema.request)
        self._add(structures, "Response", self._schema.response)
        return structures

    @property
    def response_fields(self) -> list[Field]:
        """What a response is made of, as the table of messages has it."""
        return self._schema.response

    def __getattr__(self, name: str) -> Any:
        structure = None if name.startswith("_") else self._structures.get(name)
        if structure is None:
            raise AttributeError(f"{self.__class__.__name__} has no {name}")
        # The next time it is found without coming here.
        self.__dict__[name] = structure.type
        return structure.type

    def __repr__(self) -> str:
        return f"<Api {self.name} {self.first_version}-{self.last_version}>"

    def _add(self, structures: dict[str, Structure], name: str, fields: list[Field]) -> Structure:
        # A structure that occurs twice, in other versions, is two that look the same to who uses them.
        parts = {f.name: self._add(structures, f.type, f.fields) for f in fields if f.is_structure}
        made = Structure(name, fields, self.flexible_from, parts)
        known = structures.get(name)
        if known is None:
            structures[name] = made
        elif known.type.__struct_fields__ != made.type.__struct_fields__:
            structures[f"Response{name}"] = made
        return made

    def is_flexible(self, version: int) -> bool:
        return version >= self.flexible_from

    def request_header_version(self, version: int) -> int:
        return 2 if self.is_flexible(version) else 1

    def response_header_version(self, version: int) -> int:
        # Who asks for versions does not know yet what the answer's header could be (KIP-511).
        return 1 if self.is_flexible(version) and self.key != API_VERSIONS_KEY else 0

    def read_request(self, version: int, buffer: memoryview, position: int = 0) -> Any:
        """A request's body; `records` and `bytes` in it are views of `buffer`.

        Raises:
            MalformedMessageError, UnsupportedVersionError
        """
        return self._read(self._structures["Request"], version, buffer, position)

    def read_response(self, version: int, buffer: memoryview, position: int = 0) -> Any:
        """As `read_request`."""
        return self._read(self._structures["Response"], version, buffer, position)

    def write_request(self, version: int, request: Any, out: bytearray) -> None:
        self._check(version)
        self._structures["Request"].writer(version)(request, out)

    def write_response(self, version: int, response: Any, out: bytearray) -> None:
        self._check(version)
        self._structures["Response"].writer(version)(response, out)

    def _read(self, structure: Structure, version: int, buffer: memoryview, position: int) -> Any:
        self._check(version)
        try:
            value, _ = structure.reader(version)(buffer, position, len(buffer))
        except (struct.error, IndexError):
            raise MalformedMessageError(f"{self.name} v{version}: it ends in the middle of a field") from None
        except MalformedMessageError as error:
            raise MalformedMessageError(f"{self.name} v{version}: {error}") from None
        # Bytes behind the end are passed over, as Kafka does: librdkafka's Metadata 13 has some.
        return value

    def _check(self, version: int) -> None:
        if not self.first_version <= version <= self.last_version:
            raise UnsupportedVersionError(
                f"{self.name} has versions {self.first_version} to {self.last_version}, not {version}"
            )


APIS: dict[int, Api] = {schema.key: Api(schema) for schema in api_schemas().values()}
BY_NAME: dict[str, Api] = {api.name: api for api in APIS.values()}


def __getattr__(name: str) -> Api:
    try:
        return BY_NAME[name]
    except KeyError:
        raise AttributeError(f"there is no message {name}") from None
