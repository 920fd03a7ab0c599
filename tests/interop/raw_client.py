"""Requests of any version over a plain socket, as plain data; the messages come from Kafka's definitions (kio)."""

import dataclasses
import datetime
import io
import socket
import struct
import types
import typing
import uuid
from collections.abc import Mapping
from typing import Any, Final, Self

from kio.index import load_request_schema, load_response_schema
from kio.schema.index import api_key_map
from kio.serial import entity_reader, entity_writer

from tests.interop.cluster import PATIENCE_S, Cluster

_KEYS: Final = {name: key for key, name in api_key_map.items()}


class ClosedError(Exception):
    """The broker closed the connection instead of answering."""


class RawClient:
    """One connection; one request at a time."""

    def __init__(self, cluster: Cluster) -> None:
        self._socket = socket.create_connection(cluster.address, timeout=PATIENCE_S)
        self._correlation_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def ask(self, api: str, version: int, fields: Mapping[str, Any], *, lenient: bool = False) -> Any:
        """The response to a request.

        Args:
            api: as kio names it, such as "list_offsets".
            fields: nested dictionaries and lists; durations are milliseconds; what is left out has its default.
            lenient: leave out what this version does not have.
        """
        self._correlation_id += 1
        request, frame = client_frame(api, version, fields, lenient=lenient, correlation_id=self._correlation_id)
        return self.decode(request, self.exchange(frame))

    def decode(self, request: Any, answer: bytes) -> Any:
        """The response to `request` from its bytes, all of them."""
        response_class = load_response_schema(request.__api_key__, request.__version__)
        _, header_size = entity_reader(response_class.__header_schema__)(answer, 0)
        response, size = entity_reader(response_class)(answer, header_size)
        assert header_size + size == len(answer), f"{len(answer) - header_size - size} bytes follow the response"
        return response

    def exchange(self, frame: bytes) -> bytes:
        """A request's bytes, for the response's bytes, both without their length."""
        self.send(struct.pack(">i", len(frame)) + frame)
        return self.receive()

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        try:
            self._socket.sendall(data)
        except ConnectionError as error:
            raise ClosedError from error

    def receive(self) -> bytes:
        """The next response, without its length."""
        (length,) = struct.unpack(">i", self._read(4))
        return self._read(length)

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            try:
                chunk = self._socket.recv(length - len(data))
            except ConnectionError as error:
                raise ClosedError from error
            if not chunk:
                raise ClosedError
            data += chunk
        return data


def client_frame(
    api: str, version: int, fields: Mapping[str, Any], *, lenient: bool = False, correlation_id: int = 1
) -> tuple[Any, bytes]:
    """A request and its bytes behind their header, without their length; see RawClient.ask."""
    request = build(load_request_schema(_KEYS[api], version), fields, lenient=lenient)
    header = build(
        request.__header_schema__,
        {
            "request_api_key": request.__api_key__,
            "request_api_version": version,
            "correlation_id": correlation_id,
            "client_id": "raw",
        },
        lenient=True,  # version 0 of the header has no client
    )
    buffer = io.BytesIO()
    entity_writer(type(header))(buffer, header)
    entity_writer(type(request))(buffer, request)
    return request, buffer.getvalue()


def build(entity: type, fields: Mapping[str, Any], *, lenient: bool) -> Any:
    """An instance of one of kio's dataclasses."""
    hints = typing.get_type_hints(entity)
    known = {field.name: field for field in dataclasses.fields(entity)}
    assert lenient or set(fields) <= set(known), f"{entity.__qualname__} has no {set(fields) - set(known)}"
    values = {}
    for name, field in known.items():
        if name in fields:
            values[name] = _value(hints[name], fields[name], lenient)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            values[name] = _zero(hints[name])
    return entity(**values)


def _value(hint: Any, value: Any, lenient: bool) -> Any:
    if value is None:
        return None
    kind = _without_none(hint)
    if typing.get_origin(kind) is tuple:
        return tuple(_value(typing.get_args(kind)[0], item, lenient) for item in value)
    if dataclasses.is_dataclass(kind):
        return build(typing.cast(type, kind), value, lenient=lenient)
    if isinstance(kind, type) and issubclass(kind, datetime.timedelta):
        return datetime.timedelta(milliseconds=value)
    return value


def _zero(hint: Any) -> Any:
    kind = _without_none(hint)
    if kind is not hint:
        return None
    if typing.get_origin(kind) is tuple:
        return ()
    if dataclasses.is_dataclass(kind):
        return build(typing.cast(type, kind), {}, lenient=True)
    for base, zero in (
        (bool, False),
        (int, 0),
        (str, ""),
        (bytes, b""),
        (datetime.timedelta, datetime.timedelta()),
        (uuid.UUID, uuid.UUID(int=0)),
    ):
        if issubclass(kind, base):
            return zero
    raise TypeError(f"no default for {hint}")


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (kind,) = [part for part in typing.get_args(hint) if part is not type(None)]
        return kind
    return hint
