"""Values ↔ bytes: JSON through msgspec and orjson, text, raw bytes."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import orjson

from streamcore.errors import DecodeError, UsageError


class Codec(NamedTuple):
    """Both directions for one type; `loads` raises DecodeError, never anything else."""

    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]
    # The same without the translation of errors, for the loop over a batch, which finds the culprit itself.
    loads_fast: Callable[[bytes], Any]


SERIALIZERS = ("json", "raw", "text")

_encode_json = msgspec.json.Encoder().encode


def _guard(loads: Callable[[bytes], Any], what: str) -> Callable[[bytes], Any]:
    def guarded(data: bytes) -> Any:
        try:
            return loads(data)
        except (
            Exception
        ) as error:  # a ValueError; a RecursionError for nesting; whatever a model's __post_init__ raises
            raise DecodeError(f"{data[:80]!r} is not {what}: {error}") from error

    return guarded


def _dumps_text(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise UsageError(f"a text or raw codec takes str or bytes, not {type(value).__name__}: give the topic a value_type")


def _loads_text(data: bytes) -> str:
    return data.decode()  # bytes first: str(data, "utf-8") is slower


@lru_cache(maxsize=1024)  # one entry per type an app declares
def codec_for(type_: Any, serializer: str | None = None) -> Codec:
    """The codec of a declared type.

    Args:
        type_: None for any JSON value, bytes, str, a Record, or any type msgspec knows.
        serializer: "json", "raw" or "text"; by default what fits the type: bytes raw, str text, the rest JSON.
    Raises:
        UsageError: an unknown serializer, or a type that JSON cannot hold.
    """
    if serializer is None:
        serializer = "raw" if type_ is bytes else "text" if type_ is str else "json"
    if serializer == "raw":
        if type_ is str:
            return Codec(_dumps_text, _guard(_loads_text, "UTF-8 text"), _loads_text)
        return Codec(_dumps_text, bytes, bytes)
    if serializer == "text":
        return Codec(_dumps_text, _guard(_loads_text, "UTF-8 text"), _loads_text)
    if serializer != "json":
        raise UsageError(f"there is no serializer {serializer!r}: use one of {', '.join(SERIALIZERS)}")
    if type_ is None or type_ is Any or type_ is object:
        return Codec(_encode_json, _guard(orjson.loads, "JSON"), orjson.loads)
    try:
        loads: Callable[[bytes], Any] = msgspec.json.Decoder(
            type_, strict=not getattr(type_, "__coerce__", False)
        ).decode
    except TypeError as error:
        raise UsageError(f"JSON cannot hold {type_!r}: {error}") from error
    return Codec(_encode_json, _guard(loads, f"a {getattr(type_, '__name__', type_)}"), loads)
