"""Settings and durations."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamcore as sc
from streamcore.config import ErrorPolicy, error_policy, milliseconds


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        (0, 0), (1.5, 1500), (timedelta(minutes=1), 60_000), ("30s", 30_000), ("250ms", 250), ("1h30m", 5_400_000),
        ("2d", 172_800_000), ("1w", 604_800_000), ("0.5s", 500), ("10", 10_000), ("1m 30s", 90_000),
    ],
)  # fmt: skip
def test_durations_are_seconds_timedeltas_or_text(text: Any, ms: int) -> None:
    assert milliseconds(text) == ms


@pytest.mark.parametrize(
    "bad", ["soon", "10 parsecs", "-5s", -1, None, True, float("nan"), float("inf"), "1h30", [], "5S"]
)
def test_anything_else_is_refused_with_its_name(bad: Any) -> None:
    with pytest.raises(sc.UsageError, match="grace is"):
        milliseconds(bad, "grace")


@given(st.one_of(st.text(max_size=8), st.floats(), st.integers(), st.timedeltas()))
def test_a_duration_is_whole_milliseconds_or_a_usage_error(value: Any) -> None:
    try:
        result = milliseconds(value)
    except sc.UsageError:
        return
    assert isinstance(result, int)
    assert result >= 0


def test_the_pause_before_a_retry_doubles_up_to_its_limit() -> None:
    policy = sc.retry(10, backoff=0.5, backoff_max=3)
    assert [policy.backoff(n) for n in range(1, 6)] == [0.5, 1, 2, 3, 3]
    assert sc.retry(2000, backoff=0.5).backoff(2000) == 10


def test_words_for_policies() -> None:
    assert error_policy("retry", "x") == ErrorPolicy()
    assert error_policy("skip", "x") == ErrorPolicy(retries=0, then="skip")
    for bad in ("ignore", 3, None):
        with pytest.raises(sc.UsageError, match="no policy"):
            error_policy(bad, "agent a")  # type: ignore[arg-type]
    with pytest.raises(sc.UsageError, match="retries"):
        sc.retry(-1)
    with pytest.raises(sc.UsageError, match="then"):
        sc.retry(1, then="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"brokr": "memory:"}, "did you mean broker"),
        ({"nonsense_setting": 1}, "known: "),
        ({"commit_interval": "soon"}, "commit_interval"),
        ({"flush": "sometimes"}, "flush"),
        ({"store": "sqlite://"}, "store"),
        ({"topic_partitions": 0}, "topic_partitions"),
        ({"topic_partitions": "8"}, "topic_partitions"),
        ({"on_error": "ignore"}, "no policy"),
        ({"web_port": "http"}, "web_port"),
        ({"web_port": 70_000}, "web_port"),
        ({"watchdog_after": 0}, "watchdog_after"),
        ({"table_cache_entries": -1}, "table_cache_entries"),
        ({"table_cache_entries": "many"}, "table_cache_entries"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(sc.UsageError, match=message):
        sc.App("app", **settings)


@pytest.mark.parametrize("name", ["", "with space", "a/b", "x" * 201, None, 3, "ü"])
def test_an_id_that_cannot_name_topics_is_refused(name: Any) -> None:
    with pytest.raises(sc.UsageError, match="an id is"):
        sc.App(name)
