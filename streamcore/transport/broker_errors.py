"""What a broker's error codes are on this side."""

from typing import Final

from streamcore import errors
from streamcore.errors import StreamcoreError
from streamcore.protocol.error_codes import ErrorCode

# The cluster is about to change or in the middle of it: look again where things are, and try again.
RETRIABLE: Final = frozenset(
    {
        ErrorCode.LEADER_NOT_AVAILABLE, ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.REPLICA_NOT_AVAILABLE, ErrorCode.NETWORK_EXCEPTION, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.NOT_COORDINATOR, ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND, ErrorCode.NOT_CONTROLLER, ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.UNKNOWN_LEADER_EPOCH, ErrorCode.OFFSET_NOT_AVAILABLE, ErrorCode.BROKER_NOT_AVAILABLE,
    }
)  # fmt: skip


class RetriableError(StreamcoreError):
    """An answer that another try may make better."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = code


def _classes() -> dict[int, type[StreamcoreError]]:
    found: dict[int, type[StreamcoreError]] = {}
    for value in vars(errors).values():
        # One with a constructor of its own wants more than a code and a message say.
        if not isinstance(value, type) or not issubclass(value, StreamcoreError):
            continue
        if "code" in vars(value) and "__init__" not in vars(value):
            found.setdefault(value.code, value)
    del found[StreamcoreError.code]
    return found


_CLASSES: Final = _classes()


def error_of(code: int, message: str | None, where: str) -> StreamcoreError:
    """What a broker's error code is here."""
    try:
        name = ErrorCode(code).name
    except ValueError:
        name = f"error {code}"
    if code in RETRIABLE:
        return RetriableError(code, f"{where}: {name}")
    made = _CLASSES.get(code, StreamcoreError)
    return made(message or f"{where}: the broker answered {name}")


def check(code: int, message: str | None, where: str) -> None:
    if code:
        raise error_of(code, message, where)
