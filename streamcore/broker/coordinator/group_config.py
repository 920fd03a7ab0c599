"""Settings and limits of consumer groups."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# A new member cannot heartbeat while its join waits, so a client that went away is noticed by this alone (as in Kafka).
NEW_MEMBER_JOIN_TIMEOUT_MS: Final = 300_000
# Long enough for a consumer that restarts to find its generation again; Kafka looks for such groups as often.
EMPTY_GROUP_RETENTION_MS: Final = 600_000
# A member id starts with the client's name, which may be 32 kB long; 36 characters of a UUID follow.
MEMBER_ID_PREFIX_MAX_CHARS: Final = 200
# What a member says of itself is one record, and a batch of `__consumer_offsets` takes a megabyte.
REQUEST_STRINGS_MAX_BYTES: Final = 512 << 10
# While no member of a group has joined again, it is looked at no more often than this, whatever timeouts it asked for.
POSTPONED_JOIN_MIN_MS: Final = 1000
# Strings, dicts and the member object itself, beside the bytes that the client sent.
MEMBER_OVERHEAD_BYTES: Final = 1024


class MigrationPolicy(StrEnum):
    """Whether a group with members changes from one protocol to the other; one without always does."""

    BIDIRECTIONAL = "bidirectional"
    UPGRADE = "upgrade"  # from classic
    DOWNGRADE = "downgrade"  # to classic
    DISABLED = "disabled"

    @property
    def upgrades(self) -> bool:
        return self in (self.BIDIRECTIONAL, self.UPGRADE)

    @property
    def downgrades(self) -> bool:
        return self in (self.BIDIRECTIONAL, self.DOWNGRADE)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupConfig:
    """How groups behave, and how much of a node's memory they may take."""

    group_initial_rebalance_delay_ms: int = 3000  # a first rebalance waits for more members that are about to join
    group_min_session_timeout_ms: int = 6000
    group_max_session_timeout_ms: int = 1_800_000
    group_max_size: int = 10_000  # Kafka has no limit; a leader's answer lists every member, so there has to be one
    groups_max: int = 50_000  # each costs about 2 kB without members; new ones are refused above
    members_max_bytes: int = (
        256 << 20
    )  # metadata and assignments of all members on the node; new ones are refused above
    consumer_session_timeout_ms: int = 45_000  # of members of the newer protocol, who do not choose it
    consumer_heartbeat_interval_ms: int = 5000
    consumer_max_size: int = 10_000  # as above: a description lists every member
    consumer_assignors: tuple[str, ...] = ("uniform", "range")  # the first is that of groups whose members do not care
    consumer_migration_policy: MigrationPolicy = MigrationPolicy.BIDIRECTIONAL
    persist_timeout_ms: int = 5000  # Kafka's offsets.commit.timeout.ms: members wait for a write no longer than this
