"""JSON for browsers: never fails, never larger than was agreed."""

import json
import math
from typing import Any

import orjson

TEXT_MAX = 32_768  # characters of one record's value that a page gets; a megabyte of JSON helps nobody read
SUMMARY_MAX = 240


def dump(value: Any) -> bytes:
    """JSON bytes of anything: what JSON lacks becomes text, NaN becomes null."""
    try:
        return orjson.dumps(value, default=_text, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    except (TypeError, ValueError):
        # Lone surrogates and integers beyond 64 bits: the standard library writes both.
        return json.dumps(_plain(value), default=_text).encode()


def _text(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if hasattr(value, "asdict"):
        return value.asdict()
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def readable(value: Any) -> dict[str, Any]:
    """A key or value as text to read: `{kind, text, summary, cut}`.

    The text is made here and not in the browser because JavaScript would round integers beyond 53 bits.
    `cut` is how many characters were left out; kind is "null", "text" or "json".
    """
    if value is None:
        return {"kind": "null", "text": "null", "summary": "null", "cut": 0}
    if isinstance(value, str):
        kind, text, summary = "text", value, value[:SUMMARY_MAX]
    else:
        kind = "json"
        compact = dump(value).decode("utf-8", "replace")
        summary = compact[:SUMMARY_MAX]
        try:
            text = orjson.dumps(value, default=_text, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
        except (TypeError, ValueError):
            text = compact
    return {"kind": kind, "text": text[:TEXT_MAX], "summary": summary, "cut": max(0, len(text) - TEXT_MAX)}
