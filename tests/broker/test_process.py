"""A broker as a process of its own, as its service manager sees it."""

import asyncio
import socket
from pathlib import Path

import pytest

from streamcore.broker.broker import Endpoint
from streamcore.broker.config import BrokerConfig
from streamcore.broker.node import NodeConfig
from streamcore.broker.process import serve
from streamcore.errors import InvalidConfigError


def run_to_its_end(data: Path, config: BrokerConfig | None = None) -> list[Endpoint]:
    """Serve, and stop as soon as it is ready."""
    told: list[Endpoint] = []

    async def main() -> None:
        stop = asyncio.Event()

        def on_ready(endpoint: Endpoint) -> None:
            told.append(endpoint)
            stop.set()

        await serve(
            data,
            "127.0.0.1",
            0,
            config=config or BrokerConfig(),
            node_config=NodeConfig(),
            advertised=None,
            on_ready=on_ready,
            stop=stop,
        )

    asyncio.run(asyncio.wait_for(main(), 30))
    return told


@pytest.mark.parametrize("kind", ["a path", "an abstract address"])
def test_the_service_manager_is_told_of_the_start_and_of_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    address = str(tmp_path / "notify") if kind == "a path" else f"\0streamcore-test-{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        assert len(run_to_its_end(tmp_path / "data")) == 1
        assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_a_service_manager_that_has_gone_is_a_warning_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert len(run_to_its_end(tmp_path / "data")) == 1
    assert "the service manager could not be told READY=1" in caplog.text


def test_a_start_that_fails_leaves_the_log_to_the_next(tmp_path: Path) -> None:
    config = BrokerConfig.parse({"security.protocol": "SSL", "ssl.keystore.location": "/nowhere"})
    with pytest.raises(InvalidConfigError, match=r"ssl\.keystore\.location"):
        run_to_its_end(tmp_path, config)
    assert len(run_to_its_end(tmp_path)) == 1
