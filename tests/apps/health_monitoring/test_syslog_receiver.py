"""The receiver on real loopback sockets."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from apps.health_monitoring.models import LogLine
from apps.health_monitoring.syslog_receiver import SyslogReceiver
from streamcore.errors import UsageError

PATIENCE_S = 10.0


class Inbox:
    """Lines that arrived; `wait` returns when there are so many."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self._changed = asyncio.Condition()

    async def send(self, line: LogLine) -> None:
        async with self._changed:
            self.lines.append(line)
            self._changed.notify_all()

    async def wait(self, count: int) -> list[LogLine]:
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.lines) >= count)
        return self.lines


@asynccontextmanager
async def running(send: Any, **options: Any) -> AsyncIterator[SyslogReceiver]:
    receiver = SyslogReceiver(send, port=0, **options)
    task = asyncio.create_task(receiver.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await receiver.started.wait()
        yield receiver
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def send_datagrams(port: int, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for datagram in datagrams:
            sock.sendto(datagram, ("127.0.0.1", port))


async def send_stream(port: int, data: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def closed_by_peer(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(PATIENCE_S):
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass  # how the other side closes is its own affair


def test_datagrams_of_both_formats_become_lines() -> None:
    async def scenario() -> list[LogLine]:
        inbox = Inbox()
        async with running(inbox.send) as receiver:
            send_datagrams(receiver.port, b"<13>web-01 says", b"<14>1 - db-01 app 1 - - hello", b"nonsense \xff")
            return await inbox.wait(3)

    first, second, third = asyncio.run(scenario())
    assert (first.format, first.host) == ("rfc3164", "127.0.0.1")
    assert (second.format, second.host, second.message) == ("rfc5424", "db-01", "hello")
    assert (third.format, third.host, third.raw) == ("raw", "127.0.0.1", "nonsense \\xff")


def test_a_sender_on_this_machine_may_have_the_machines_name() -> None:
    async def scenario() -> list[LogLine]:
        inbox = Inbox()
        async with running(inbox.send, loopback_host="here") as receiver:
            send_datagrams(receiver.port, b"nonsense")
            return await inbox.wait(1)

    assert asyncio.run(scenario())[0].host == "here"


def test_one_connection_may_count_octets_and_end_lines() -> None:
    async def scenario() -> list[LogLine]:
        inbox = Inbox()
        async with running(inbox.send) as receiver:
            await send_stream(receiver.port, b"<13>one\n12 <13>two\nlong<13>three\x00<13>four without an end")
            return await inbox.wait(4)

    assert [line.message for line in asyncio.run(scenario())] == ["one", "two\nlong", "three", "four without an end"]


def test_a_line_of_64_kb_arrives_and_a_longer_one_is_cut_and_marked() -> None:
    async def scenario() -> list[LogLine]:
        inbox = Inbox()
        async with running(inbox.send) as receiver:
            whole = b"<13>" + b"x" * ((64 << 10) - 4)
            await send_stream(receiver.port, whole + b"\n" + b"<13>" + b"y" * 200_000 + b"\n<13>next\n")
            return await inbox.wait(3)

    whole, cut, following = asyncio.run(scenario())
    assert (len(whole.message), whole.truncated) == ((64 << 10) - 4, False)
    assert (len(cut.message), cut.truncated) == ((64 << 10) - 4, True)
    assert (following.message, following.truncated) == ("next", False)


def test_random_bytes_never_end_the_receiver() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    noise = random.Random(seed)

    async def scenario() -> list[LogLine]:
        inbox = Inbox()
        async with running(inbox.send) as receiver:
            for _ in range(50):
                send_datagrams(receiver.port, noise.randbytes(noise.randrange(1, 2000)))
                await send_stream(receiver.port, noise.randbytes(noise.randrange(1, 2000)))
            await send_stream(receiver.port, b"\n<13>still there\n")
            async with asyncio.timeout(PATIENCE_S):
                while not any(line.message == "still there" for line in inbox.lines):
                    await inbox.wait(len(inbox.lines) + 1)
        return inbox.lines

    assert len(asyncio.run(scenario())) > 50


def test_a_line_that_cannot_be_sent_on_costs_no_other() -> None:
    async def scenario() -> list[LogLine]:
        inbox = Inbox()

        async def send(line: LogLine) -> None:
            if line.message == "bad":
                raise RuntimeError("no")
            await inbox.send(line)

        async with running(send) as receiver:
            await send_stream(receiver.port, b"<13>bad\n<13>good\n")
            return await inbox.wait(1)

    assert [line.message for line in asyncio.run(scenario())] == ["good"]


def test_a_slow_log_slows_tcp_down_and_loses_nothing() -> None:
    async def scenario() -> list[LogLine]:
        inbox = Inbox()
        gate = asyncio.Event()

        async def send(line: LogLine) -> None:
            await gate.wait()
            await inbox.send(line)

        async with running(send, queue_max_messages=10) as receiver:
            data = b"".join(b"<13>%06d" % number + b"x" * 500 + b"\n" for number in range(20_000))
            _, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
            writer.write(data)
            drained = asyncio.create_task(writer.drain())
            await asyncio.sleep(0)
            gate.set()
            await inbox.wait(20_000)
            await drained
            writer.close()
            await writer.wait_closed()
        return inbox.lines

    assert [int(line.message[:6]) for line in asyncio.run(scenario())] == list(range(20_000))


def test_a_full_queue_drops_datagrams_and_goes_on() -> None:
    async def scenario() -> tuple[int, str]:
        inbox = Inbox()
        gate = asyncio.Event()

        async def send(line: LogLine) -> None:
            await gate.wait()
            await inbox.send(line)

        async with running(send, queue_max_messages=5) as receiver:
            for _ in range(20):
                receiver.take_datagram(b"<13>early", "192.0.2.1")
            gate.set()
            await inbox.wait(5)
            count = len(inbox.lines)
            receiver.take_datagram(b"<13>late", "192.0.2.1")
            return count, (await inbox.wait(count + 1))[-1].message

    assert asyncio.run(scenario()) == (5, "late")


def test_the_quietest_connection_makes_room_for_a_new_one() -> None:
    async def scenario() -> None:
        inbox = Inbox()
        async with running(inbox.send, connections_max=2) as receiver:
            connections = []
            for number in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
                connections.append((reader, writer))
                writer.write(b"<13>hello %d\n" % number)
                await inbox.wait(number + 1)
            await closed_by_peer(connections[0][0])
            connections[2][1].write(b"<13>the last one lives\n")
            assert (await inbox.wait(4))[-1].message == "the last one lives"
            for _, writer in connections:
                writer.close()
                await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    asyncio.run(scenario())


@pytest.mark.parametrize(("data", "bounds"), [(b"", {"idle_max_s": 0.05}), (b"<13>drip", {"message_max_s": 0.05})])
def test_idle_and_dripping_connections_are_closed(data: bytes, bounds: dict[str, float]) -> None:
    async def scenario() -> None:
        async with running(Inbox().send, **bounds) as receiver:
            reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
            writer.write(data)
            await closed_by_peer(reader)
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_in_use_is_an_error_with_a_remedy(kind: socket.SocketKind) -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET, kind) as holder:
            holder.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                holder.listen()
            with pytest.raises(UsageError, match=r"the port is in use; `ss .* choose another port"):
                await SyslogReceiver(Inbox().send, port=holder.getsockname()[1]).run()

    asyncio.run(scenario())


def test_what_had_arrived_before_the_stop_is_sent_on() -> None:
    async def scenario() -> list[LogLine]:
        inbox = Inbox()
        async with running(inbox.send) as receiver:
            receiver.take_datagram(b"<13>just in time", "192.0.2.1")
        return inbox.lines

    assert [line.message for line in asyncio.run(scenario())] == ["just in time"]
