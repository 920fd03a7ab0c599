"""Which errors a response holds, wherever in it: found along the fields that can hold one, known once per API."""

from collections.abc import Callable
from functools import cache
from typing import Any

from streamcore.protocol.messages import Api
from streamcore.protocol.schema import Field

Tally = Callable[[Any, dict[int, int]], None]
_CODE = "error_code"


@cache
def tally_of(api: Api) -> Tally:
    """Adds the error codes of a response of this API to a tally; success is not counted."""
    return _tally(api.response_fields) or _nothing


def _tally(fields: list[Field]) -> Tally | None:
    has_code = any(field.name == _CODE for field in fields)
    inner = [(field.name, found, field.is_array) for field in fields if (found := _tally(field.fields)) is not None]
    if not has_code and not inner:
        return None

    def tally(value: Any, errors: dict[int, int]) -> None:
        if has_code and (code := value.error_code):
            code = int(code)
            errors[code] = errors.get(code, 0) + 1
        for name, each, is_array in inner:
            part = getattr(value, name)
            if part is None:
                continue
            if is_array:
                for element in part:
                    each(element, errors)
            else:
                each(part, errors)

    return tally


def _nothing(value: Any, errors: dict[int, int]) -> None:
    """Of a response that says of no error."""
