"""The age of the oldest record that a group has not consumed."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from streamcore.transport import lag_times
from streamcore.transport.base import Fetched
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.transport.lag_times import LagTimes
from streamcore.types import TP

from .support import A0, A1, NOW_MS, opened, records

Make = Callable[..., EmbeddedTransport]


def looked(make: Make, positions: dict[TP, int], *, rounds: int = 1) -> tuple[dict[TP, int | None], int]:
    """(lags, fetches) with records of 10 s, 5 s and 1 s ago in A0 and nothing in A1."""

    async def main() -> tuple[dict[TP, int | None], int]:
        async with opened(make(), {"a": 2}) as transport:
            fetches = 0
            fetch = transport.fetch

            async def counted(*arguments: Any, **options: Any) -> list[Fetched]:
                nonlocal fetches
                fetches += 1
                return await fetch(*arguments, **options)

            transport.fetch = counted  # type: ignore[method-assign]
            for age_ms in (10_000, 5_000, 1_000):
                await transport.produce({A0: records(b"v", timestamp_ms=NOW_MS - age_ms)})
            ends = {info.tp: info.log_end_offset for info in await transport.describe_partitions()}
            times = LagTimes(transport)
            for _ in range(rounds):
                found = await times.of(positions, ends, NOW_MS)
            return found, fetches

    return asyncio.run(main())


@pytest.mark.parametrize(("offset", "lag_ms"), [(0, 10_000), (1, 5_000), (2, 1_000), (3, 0), (4, 0)])
def test_it_is_the_age_of_the_first_record_at_the_committed_offset(make: Make, offset: int, lag_ms: int) -> None:
    assert looked(make, {A0: offset, A1: 0})[0] == {A0: lag_ms, A1: 0}


def test_a_group_that_stands_still_is_looked_up_once(make: Make) -> None:
    assert looked(make, {A0: 1}, rounds=5) == ({A0: 5_000}, 1)


def test_who_is_up_to_date_costs_nothing(make: Make) -> None:
    assert looked(make, {A0: 3, A1: 0}) == ({A0: 0, A1: 0}, 0)


def test_a_partition_that_is_not_there_has_none(make: Make) -> None:
    assert looked(make, {TP("gone", 0): 7})[0] == {}


def test_what_does_not_fit_in_a_round_follows_in_the_next(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag_times, "LOOK_UPS_MAX", 1)

    async def main() -> None:
        async with opened(make(), {"a": 2}) as transport:
            for tp in (A0, A1):
                await transport.produce({tp: records(b"v", timestamp_ms=NOW_MS - 1)})
            times = LagTimes(transport)
            ends = {A0: 1, A1: 1}
            assert await times.of({A0: 0, A1: 0}, ends, NOW_MS) == {A0: 1, A1: None}
            assert await times.of({A0: 0, A1: 0}, ends, NOW_MS) == {A0: 1, A1: 1}

    asyncio.run(main())


def test_a_record_from_the_future_is_not_late(make: Make) -> None:
    async def main() -> None:
        async with opened(make(), {"a": 1}) as transport:
            await transport.produce({A0: records(b"v", timestamp_ms=NOW_MS + 60_000)})
            assert await LagTimes(transport).of({A0: 0}, {A0: 1}, NOW_MS) == {A0: 0}

    asyncio.run(main())
