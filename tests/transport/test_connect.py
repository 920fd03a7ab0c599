import asyncio
import gc
from pathlib import Path

import pytest

from streamcore.errors import DirectoryUnusableError, LogOfflineError, UsageError
from streamcore.transport import connect
from streamcore.transport.embedded import EmbeddedTransport, MemoryTransport, forget_memory
from streamcore.transport.shared_directory import SharedDirectoryTransport
from tests.transport.support import A0, opened, read_all, records
from tests.transport.virtual_loop import run_virtually


def test_the_scheme_chooses_the_transport() -> None:
    assert isinstance(connect("memory:"), MemoryTransport)
    embedded = connect("embedded:./streamcore-data")
    assert isinstance(embedded, SharedDirectoryTransport)
    assert embedded.url == "embedded:./streamcore-data"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("streamcore-data", "has no scheme; use embedded:DIR"),
        ("redis://localhost", "unknown scheme 'redis'; use embedded:DIR"),
        ("embedded:", "names no directory; embedded:./streamcore-data would"),
        ("embedded://", "names no directory"),
    ],
)
def test_a_url_that_leads_nowhere_says_what_would_work(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        connect(url)


def test_an_unknown_flush_policy_is_refused() -> None:
    with pytest.raises(UsageError, match="it is interval or always"):
        connect("memory:", flush="sometimes")


def test_nothing_works_before_the_start() -> None:
    with pytest.raises(LogOfflineError, match=r"await start\(\) comes first"):
        asyncio.run(connect("memory:").topics())


def test_private_memories_are_apart_and_named_ones_are_shared() -> None:
    async def run() -> None:
        async with opened(MemoryTransport(), {"a": 1}), opened(MemoryTransport()) as other:
            assert await other.topics() == {}
        async with opened(MemoryTransport("shared"), {"a": 1}) as one, opened(MemoryTransport("shared")) as two:
            await one.produce({A0: records(b"x")})
            assert await read_all(two, A0) == [(0, b"x")]
        async with opened(MemoryTransport("shared")) as later:
            assert await read_all(later, A0) == [(0, b"x")]
        forget_memory("shared")
        async with opened(MemoryTransport("shared")) as anew:
            assert await anew.topics() == {}

    run_virtually(run())
    forget_memory("shared")


def test_a_memory_keeps_its_records_over_a_restart() -> None:
    async def run() -> None:
        transport = MemoryTransport()
        async with opened(transport, {"a": 1}):
            await transport.produce({A0: records(b"x")})
        async with opened(transport):
            assert await read_all(transport, A0) == [(0, b"x")]

    run_virtually(run())


def test_two_transports_on_one_directory_share_it_until_the_last_one_stops(tmp_path: Path) -> None:
    async def run() -> None:
        (tmp_path / "link").symlink_to(tmp_path / "data")
        one = EmbeddedTransport(str(tmp_path / "data"))
        two = EmbeddedTransport(str(tmp_path / "link"))
        await asyncio.gather(one.start(), two.start())
        await one.create_topic("a", partitions=1)
        await one.produce({A0: records(b"x")})
        await one.stop()
        await one.stop()  # harmless
        assert await read_all(two, A0) == [(0, b"x")]
        # Stopping and starting at the same time neither fails nor leaves anything open.
        await asyncio.gather(two.stop(), one.start())
        assert await read_all(one, A0) == [(0, b"x")]
        await one.stop()

    asyncio.run(run())


def test_two_transports_on_one_directory_must_agree_on_the_flush_policy(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(EmbeddedTransport(str(tmp_path), flush="always")):
            with pytest.raises(UsageError, match="open in this process with flush=always"):
                await EmbeddedTransport(str(tmp_path), flush="interval").start()
            async with opened(EmbeddedTransport(str(tmp_path))):
                pass  # no policy of its own

    asyncio.run(run())


def test_another_event_loop_is_told_that_the_directory_is_open_here(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(EmbeddedTransport(str(tmp_path))):
            with pytest.raises(UsageError, match="another event loop of this process"):
                await asyncio.to_thread(asyncio.run, EmbeddedTransport(str(tmp_path)).start())

    asyncio.run(run())


def test_an_event_loop_that_ended_without_stopping_leaves_the_directory_to_the_next(tmp_path: Path) -> None:
    async def forgetful() -> None:
        transport = EmbeddedTransport(str(tmp_path))
        await transport.start()
        await transport.create_topic("a", partitions=1)
        await transport.produce({A0: records(b"x")})

    async def next_one() -> None:
        async with opened(EmbeddedTransport(str(tmp_path))) as transport:
            assert await read_all(transport, A0) == [(0, b"x")]

    asyncio.run(forgetful())
    asyncio.run(next_one())
    gc.collect()


def test_a_path_that_is_no_directory_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryUnusableError, match="use another directory"):
        asyncio.run(EmbeddedTransport(str(tmp_path / "file")).start())
