"""Which errors a response holds, wherever in it.

The way to them is known from the table of messages and written out as a function once per API: every answer of the
broker goes through it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from streamcore.protocol.messages import Api
from streamcore.protocol.schema import Field

Tally = Callable[[Any, dict[int, int]], None]
_CODE = "error_code"


def tally_of(api: Api) -> Tally:
    """A function that adds the error codes of a response of this API to a tally; success is not counted."""
    lines = list(_lines(api.response_fields, "response", 1)) or ["    pass"]
    names: dict[str, Any] = {}
    exec("\n".join(["def tally(response, errors):", *lines]), names)
    tally: Tally = names["tally"]
    return tally


def _lines(fields: list[Field], value: str, depth: int) -> Iterator[str]:
    indent = "    " * depth
    if any(field.name == _CODE for field in fields):
        yield f"{indent}if code := {value}.{_CODE}:"
        yield f"{indent}    errors[int(code)] = errors.get(code, 0) + 1"
    for field in fields:
        inner = list(_lines(field.fields, f"value_{depth}", depth + 1))
        if inner:
            # What may be null is as good as empty.
            values = f"{value}.{field.name} or ()" if field.is_array else f"filter(None, ({value}.{field.name},))"
            yield f"{indent}for value_{depth} in {values}:"
            yield from inner
