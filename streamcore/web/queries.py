"""Query parameters from outside: every one has bounds, and a clear answer when it is outside them."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException

OFFSET_MAX = (1 << 63) - 1


def integer(query: Mapping[str, str], name: str, default: int, *, low: int = 0, high: int = OFFSET_MAX) -> int:
    """A whole number within bounds.

    Raises:
        HTTPException: 400 that names the parameter, its bounds and what came.
    """
    text = query.get(name)
    if text is None or text == "":
        return default
    # isdecimal and a length bound first: int() takes "1_0", " 1 " and digits of any length.
    if not (text.removeprefix("-").isdecimal() and text.isascii() and len(text) <= 20):
        raise HTTPException(400, f"{name}={_short(text)!r} is not a whole number from {low} to {high}")
    value = int(text)
    if not low <= value <= high:
        raise HTTPException(400, f"{name}={value} is out of bounds: it goes from {low} to {high}")
    return value


def text(query: Mapping[str, str], name: str, default: str = "", *, length_max: int = 200) -> str:
    """A short text.

    Raises:
        HTTPException: 400 when it is longer than `length_max` characters.
    """
    value = query.get(name, default)
    if len(value) > length_max:
        raise HTTPException(400, f"{name} has {len(value)} characters; at most {length_max} are taken")
    return value


def _short(value: str) -> str:
    return value if len(value) <= 40 else value[:40] + "…"
