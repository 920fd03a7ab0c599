"""What an agent failed at, and how often."""

from dataclasses import dataclass
from typing import Any

# What failed: (partition, offset) for a record, with a number or CLOSE behind it for a joined row of that record,
# or ("window", table, start, key) for the close of a window's row.
Identity = tuple[Any, ...]

CLOSE = "close"  # the joined row that comes when its record's window closes


@dataclass
class Failure:
    """An event that its agent raised at."""

    error: BaseException
    attempts: int = 0
    is_fresh: bool = True  # not yet waited for since the last attempt


class WindowCloseError(Exception):
    """`on_window_close` raised; carries which window's row it was."""

    def __init__(self, identity: Identity, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.identity = identity
        self.cause = cause


def place_of(identity: Identity) -> str:
    """An identity for people."""
    if identity[0] == "window":
        return f"{identity[0]} {identity[1]}@{identity[2]}"
    place = f"{identity[0]}@{identity[1]}"
    return place if len(identity) == 2 else f"{place} (joined row {identity[2]})"
