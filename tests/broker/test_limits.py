"""Clients that say nothing, say half of something, or are too many."""

import asyncio
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from streamcore.broker import connection, server
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from tests.certificates import make_certificates

from .test_connection import a_fetch, make_topic, run
from .wire import Client, serving

ApiVersions: Any = messages.ApiVersions
Fetch: Any = messages.Fetch
SHORT_S = 0.05


async def is_well(client: Client) -> bool:
    return bool((await client.ask(ApiVersions, 0, ApiVersions.Request())).error_code == ErrorCode.NONE)


@pytest.mark.parametrize(
    "part", [b"\0", struct.pack(">i", 1000) + b"abc", struct.pack(">i", 5_000_000) + bytes(70_000)]
)
def test_part_of_a_frame_and_then_silence_ends_the_connection(
    tmp_path: Path, part: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "FRAME_SILENCE_MAX_S", SHORT_S)

    async def test(server: server.Server) -> None:
        async with Client.of(server) as good, Client.of(server) as bad:
            bad.writer.write(part)
            assert await bad.ended()
            assert await is_well(good), "a client that says nothing at all may do so for longer"

    run(tmp_path, test)
    assert "part of a frame, and then nothing" in caplog.text


def test_an_idle_connection_ends_and_a_waiting_fetch_is_not_idle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(server: server.Server) -> None:
        async with Client.of(server) as client:
            await make_topic(client, "t")
            client.send(Fetch, 11, a_fetch("t", 0, max_wait_ms=int(5 * 1000 * SHORT_S)))
            await client.receive(Fetch, 11)
            assert await client.ended()

    with caplog.at_level(logging.INFO):
        run(tmp_path, test, connections_max_idle_ms=int(1000 * SHORT_S))
    assert "idle for 0.05 s (connections.max.idle.ms)" in caplog.text


def test_a_client_that_never_takes_its_answers_is_idle(tmp_path: Path) -> None:
    async def test(server: server.Server) -> None:
        async with Client.of(server) as good, Client.of(server) as slow:
            await make_topic(good, "t")
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            _, frame = slow.frame(ApiVersions, 0, ApiVersions.Request())
            # Answers of some 20 MB, more than the system takes for somebody who does not read.
            slow.writer.write(frame * 60_000)
            while len(server.connections) > 1:
                assert await is_well(good)
                await asyncio.sleep(SHORT_S / 10)

    run(tmp_path, test, connections_max_idle_ms=int(20 * 1000 * SHORT_S))


def test_who_does_not_log_in_has_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LOGIN_MAX_S", 4 * SHORT_S)

    async def test(server: server.Server) -> None:
        async with Client.of(server) as client:
            assert await is_well(client)
            assert await client.ended()

    run(tmp_path, test, **{"security.protocol": "SASL_PLAINTEXT"})


@pytest.mark.parametrize("setting", ["max.connections", "max.connections.per.ip"])
def test_one_connection_too_many_ends_at_once_and_one_that_goes_makes_room(
    tmp_path: Path, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(server: server.Server) -> None:
        async with Client.of(server) as good:
            assert await is_well(good)
            async with Client.of(server) as other:
                assert await is_well(other)
                async with Client.of(server) as third:
                    assert await third.ended()
                assert await is_well(other)
            while len(server.connections) > 1:
                assert await is_well(good)
            async with Client.of(server) as other:
                assert await is_well(other)
            assert await is_well(good)

    with caplog.at_level(logging.WARNING):
        run(tmp_path, test, **{setting: 2})
    assert f"({setting})" in caplog.text


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_tls_handshake_that_never_ends_is_ended_and_holds_nobody_up(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TLS_HANDSHAKE_MAX_S", 4 * SHORT_S)
    certificates = make_certificates(tmp_path / "certificates")
    settings = {"security.protocol": "SSL", "ssl.keystore.location": str(certificates.server)}

    async def main() -> None:
        async with serving(tmp_path / "data", **settings) as running:
            async with Client.of(running) as silent, Client.of(running) as half:
                half.writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20))
                assert await silent.ended()
                assert await half.ended()
            assert not running.connections
            # And one that still hangs when the broker stops.
            _, writer = await asyncio.open_connection("127.0.0.1", running.broker.endpoint.port)
        writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(main(), 30))
