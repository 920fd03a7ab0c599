"""What an app can set, with defaults, units and reasons."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Literal

from streamcore.errors import UsageError

Seconds = timedelta | float | str

# Kafka's own rule for topic and group names, which an app's id becomes part of.
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,200}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def milliseconds(value: Seconds, what: str = "a duration") -> int:
    """Seconds as a number, a timedelta, or text such as "30s", "1h30m", "250ms", in whole milliseconds.

    Raises:
        UsageError: anything else, or a negative duration.
    """
    if isinstance(value, timedelta):
        result = value.total_seconds() * 1000
    elif isinstance(value, str):
        parts = _DURATION.findall(value.replace(" ", ""))
        if parts and "".join(n + u for n, u in parts) == value.replace(" ", ""):
            result = sum(float(n) * _UNIT_MS[u] for n, u in parts)
        else:
            try:
                result = float(value) * 1000
            except ValueError:
                raise UsageError(f"{what} is {value!r}: write seconds, or text such as '30s', '5m', '1h30m'") from None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        result = value * 1000
    else:
        raise UsageError(f"{what} is {value!r}: write seconds, or text such as '30s', '5m', '1h30m'")
    if not 0 <= result < 1 << 53:
        raise UsageError(f"{what} is {value!r}: a duration is not negative and finite")
    return round(result)


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """What happens to an event whose agent raises."""

    retries: int = 3  # how often it is tried again, alone, before `then`
    backoff_s: float = 0.2  # before the first retry; doubles each time
    backoff_max_s: float = 10.0  # a longer pause would look like a hang to whoever watches the lag
    then: Literal["dead_letter", "skip", "stop"] = "dead_letter"

    def backoff(self, attempt: int) -> float:
        """Seconds to wait before retry number `attempt` (from 1)."""
        return float(min(self.backoff_max_s, self.backoff_s * 2 ** min(attempt - 1, 30)))


def retry(
    retries: int = 3,
    backoff: Seconds = 0.2,
    *,
    backoff_max: Seconds = 10.0,
    then: Literal["dead_letter", "skip", "stop"] = "dead_letter",
) -> ErrorPolicy:
    """An error policy: try the event again, then dead-letter it, skip it or stop the worker."""
    return error_policy(
        ErrorPolicy(retries, milliseconds(backoff) / 1000, milliseconds(backoff_max) / 1000, then), "retry()"
    )


def error_policy(value: "ErrorPolicy | str", where: str) -> ErrorPolicy:
    """The policy behind `on_error=`.

    Raises:
        UsageError: a word that is no policy.
    """
    if isinstance(value, ErrorPolicy):
        if value.retries < 0 or value.then not in ("dead_letter", "skip", "stop"):
            raise UsageError(f"{where}: retries is 0 or more and `then` is 'dead_letter', 'skip' or 'stop'")
        return value
    if value == "retry":
        return ErrorPolicy()
    if value in ("dead_letter", "skip", "stop"):
        return ErrorPolicy(retries=0, then=value)  # type: ignore[arg-type]
    raise UsageError(
        f"{where}: on_error={value!r} is no policy; use 'retry', 'dead_letter', 'skip', 'stop' or sc.retry(…)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AppConfig:
    """The settings of an app; every one can be given to `App(id, …)`."""

    id: str  # names the consumer group, the changelogs and the state directory
    broker: str = "embedded:./streamcore-data"  # embedded:DIR, memory: or kafka://host:port,…
    # With kafka://, TLS and login under Kafka's or librdkafka's names, or the path of a properties file with them.
    broker_config: Mapping[str, str] | str = field(default="", repr=False)
    store: str = "rocksdb://"  # rocksdb:// or memory://
    datadir: str = ""  # where tables live; empty: beside the embedded log, else ./{id}-data
    flush: Literal["interval", "always"] = "interval"  # when the embedded log reaches the disk itself
    topic_partitions: int = 8  # of topics that do not say; Faust's default
    commit_interval: Seconds = 0.1  # the longest a result waits under load
    # An idle partition's result is committed at once, but no sooner than this after the one before:
    # a commit costs about 0.3 ms, so 5 ms bounds its share of a core near 6 %.
    commit_linger: Seconds = 0.005
    idle_after: Seconds = 1.0  # a source silent this long no longer holds back the watermark
    on_error: ErrorPolicy | str = ErrorPolicy()
    drain: Seconds = 3.0  # how long an orderly stop waits for events in flight
    watchdog_after: Seconds = 60.0  # lag without progress this long is an error that someone sees
    listen: bool = True  # an embedded log can be reached by every Kafka client, on loopback
    listen_port: int = 9092  # Kafka's; any free one where it is taken
    session_timeout: Seconds = 10.0  # a worker that is silent for so long is taken for dead; others take over
    group_instance_id: str = ""  # Kafka's: a worker that starts again within session_timeout goes on where it was
    web_enabled: bool = True
    web_host: str = "127.0.0.1"  # listens on loopback unless told otherwise
    web_port: int = 6066  # Faust's
    table_cache_entries: int = 1_000_000  # per partition; above it clean entries leave memory after a commit

    @classmethod
    def of(cls, app_id: str, settings: dict[str, Any]) -> "AppConfig":
        """Check the settings once.

        Raises:
            UsageError: an unknown name, or a value out of bounds.
        """
        if not isinstance(app_id, str) or not _NAME.fullmatch(app_id):
            raise UsageError(f"App({app_id!r}): an id is 1 to 200 letters, digits, '.', '_' or '-'")
        known = {field.name for field in fields(cls)}
        for name in settings:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(sorted(known - {'id'}))}"
                raise UsageError(f"App({app_id!r}) has no setting {name!r}{hint}")
        config = cls(id=app_id, **settings)
        for name in ("commit_interval", "commit_linger", "idle_after", "drain", "watchdog_after", "session_timeout"):
            milliseconds(getattr(config, name), f"App({app_id!r}) {name}")
        if config.flush not in ("interval", "always"):
            raise UsageError(f"App({app_id!r}): flush is 'interval' or 'always', not {config.flush!r}")
        if config.store not in ("rocksdb://", "memory://"):
            raise UsageError(f"App({app_id!r}): store is 'rocksdb://' or 'memory://', not {config.store!r}")
        if milliseconds(config.watchdog_after) < 1:
            raise UsageError(f"App({app_id!r}): watchdog_after is more than 0 seconds")
        for name, low, high in (
            ("topic_partitions", 1, 10_000), ("table_cache_entries", 0, 1 << 40), ("web_port", 0, 65_535),
            ("listen_port", 0, 65_535),
        ):  # fmt: skip
            value = getattr(config, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise UsageError(f"App({app_id!r}): {name} is {low} to {high}, not {value!r}")
        error_policy(config.on_error, f"App({app_id!r})")
        return config
