"""Dead letters: what could not be processed, as it was, with where it came from and why in its headers."""

import traceback
from collections.abc import Sequence

from streamcore.types import TP, OutRecord

TRACEBACK_MAX_BYTES = 16_384  # the innermost frames say the most; a deep recursion's would fill the topic

# A dead letter carries its record and a traceback; twice Kafka's default leaves room for both.
DEAD_LETTER_CONFIG = {"max.message.bytes": str(2 * 1_048_588), "retention.ms": str(30 * 86_400_000)}


def describe(error: BaseException) -> str:
    """The traceback as text, its end kept where it is long."""
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= TRACEBACK_MAX_BYTES else "…" + text[-TRACEBACK_MAX_BYTES:]


def dead_letter(
    agent: str,
    origin: TP,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    timestamp_ms: int,
    headers: Sequence[tuple[str, bytes]],
    error: BaseException,
    attempts: int,
    *,
    detail: str = "",
) -> OutRecord:
    """The record for the dead-letter topic: key, value and headers as they were, ours before them."""
    ours = [
        ("streamcore.agent", agent.encode()),
        ("streamcore.topic", origin.topic.encode()),
        ("streamcore.partition", str(origin.partition).encode()),
        ("streamcore.offset", str(offset).encode()),
        ("streamcore.timestamp", str(timestamp_ms).encode()),
        ("streamcore.error", f"{type(error).__name__}: {error}"[:1000].encode(errors="replace")),
        ("streamcore.traceback", describe(error).encode(errors="replace")),
        ("streamcore.attempts", str(attempts).encode()),
    ]
    if detail:
        ours.append(("streamcore.detail", detail.encode()))
    return key, value, timestamp_ms, [*ours, *headers]
