"""What consumer groups know of topics, and which topics a regular expression means.

Kafka's expressions are RE2's (KIP-848 names RE2/J), matched in a time that grows with the length of the name; Python's
`re` would let one hostile pattern hold up the event loop for years. The memory of a pattern bounds that time: with the
limit here a name of 249 characters takes less than a millisecond, and a pattern may still list a hundred names.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

import re2

from streamcore.broker.coordinator.consumer_groups.messages import GroupRefusedError
from streamcore.broker.coordinator.group_messages import GroupError

_PATTERN_MAX_BYTES: Final = 64 << 10
_PATTERNS_KEPT: Final = 256


class Topic(NamedTuple):
    """One topic; a later one of the same name has another id."""

    topic_id: UUID
    partitions: int


class Topics:
    """All topics at one moment."""

    def __init__(self, revision: int, by_name: Mapping[str, Topic]) -> None:
        """
        Args:
            revision: another one after every change of a topic or its partitions.
        """
        self.revision = revision
        self.by_name = dict(by_name)
        self.names = frozenset(self.by_name)
        self.name_of: dict[UUID, str] = {topic.topic_id: name for name, topic in self.by_name.items()}

    def ids(self, names: Iterable[str]) -> frozenset[UUID]:
        """Of those that exist."""
        return frozenset(self.by_name[name].topic_id for name in names if name in self.by_name)

    def partitions(self, topic_id: UUID) -> int:
        return self.by_name[self.name_of[topic_id]].partitions

    def hash_of(self, names: Iterable[str]) -> int:
        """A number of 64 bits with a sign, another one as soon as something about these topics has changed."""
        known = sorted((name, self.by_name[name]) for name in names if name in self.by_name)
        if not known:
            return 0
        digest = hashlib.blake2b(digest_size=8)
        for name, topic in known:
            digest.update(f"{name}\0{topic.topic_id}\0{topic.partitions}\0".encode())
        return int.from_bytes(digest.digest(), "big", signed=True)


def check_regex(regex: str) -> None:
    """
    Raises:
        GroupRefusedError: INVALID_REGULAR_EXPRESSION.
    """
    _compiled(regex)


def matching(regex: str, names: Collection[str]) -> list[str]:
    """The names that the expression describes from end to end."""
    pattern = _compiled(regex)
    return [name for name in names if pattern.fullmatch(name) is not None]


@lru_cache(_PATTERNS_KEPT)
def _compiled(regex: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_MAX_BYTES
    try:
        return re2.compile(regex, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args else "it cannot be read"
        raise GroupRefusedError(
            GroupError.INVALID_REGULAR_EXPRESSION,
            f"SubscribedTopicRegex `{regex}` is not a valid regular expression: {reason}.",
        ) from error
