"""The real Prometheus Alertmanager hears of alarms."""

import asyncio
import json
import os
import shutil
import socket
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from apps.health_monitoring.notifiers import Alertmanager
from tests.apps.health_monitoring.alarms import an_alarm

pytestmark = pytest.mark.interop

PATIENCE_S = 30.0


def binary() -> str:
    found = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("prometheus-alertmanager is missing, and CI must have it")
        pytest.skip("prometheus-alertmanager (Debian package of that name) is not on this machine")
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


async def until(url: str, wanted: Callable[[Any], bool]) -> Any:
    """Poll a server that is not ours until it says what is wanted."""
    answer: Any = None
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                answer = await asyncio.to_thread(get, url)
            except OSError:
                pass
            else:
                if wanted(answer):
                    return answer
            await asyncio.sleep(0.05)


@asynccontextmanager
async def alertmanager(directory: Path, port: int) -> AsyncIterator[str]:
    config = directory / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    process = await asyncio.create_subprocess_exec(
        binary(), f"--config.file={config}", f"--storage.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until(f"http://127.0.0.1:{port}/api/v2/status", lambda status: True)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def test_firing_and_resolved_arrive(tmp_path: Path) -> None:
    async def scenario() -> tuple[Any, Any]:
        async with alertmanager(tmp_path, free_port()) as url:
            notifier = Alertmanager(url, page_url="http://127.0.0.1:6066/alarms/1")
            task = asyncio.create_task(notifier.run())
            try:
                now_ms = int(time.time() * 1000)
                begun = {"since_ms": now_ms - 20_000, "started_ms": now_ms - 20_000}
                await notifier.notify(an_alarm("pending", sequence=1, at_ms=now_ms - 20_000, **begun))
                await notifier.notify(an_alarm("firing", sequence=2, at_ms=now_ms, fired_ms=now_ms, **begun))
                alerts = f"{url}/api/v2/alerts"
                firing = await until(alerts, lambda answer: len(answer) == 1)
                await notifier.notify(
                    an_alarm("resolved", sequence=3, at_ms=now_ms + 1, fired_ms=now_ms, resolved_ms=now_ms + 1, **begun)
                )
                # Alertmanager's API lists what has not ended, so a resolution shows as an empty list.
                return firing, await until(alerts, lambda answer: answer == [])
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    (alert,), resolved = asyncio.run(scenario())
    assert alert["labels"] == {"alertname": "CpuSaturated", "host": "web-01", "severity": "critical"}
    assert alert["annotations"]["summary"] == "web-01 is at 97.3 % CPU"
    assert alert["generatorURL"] == "http://127.0.0.1:6066/alarms/1"
    assert alert["status"]["state"] == "active"
    assert resolved == []


def test_an_alertmanager_that_comes_late_hears_of_what_is_firing(tmp_path: Path) -> None:
    async def scenario() -> Any:
        port = free_port()
        notifier = Alertmanager(f"http://127.0.0.1:{port}", backoff_first_s=0.05)
        task = asyncio.create_task(notifier.run())
        try:
            now_ms = int(time.time() * 1000)
            await notifier.notify(an_alarm("firing", sequence=2, at_ms=now_ms, fired_ms=now_ms))
            async with alertmanager(tmp_path, port) as url:
                return await until(f"{url}/api/v2/alerts", lambda answer: len(answer) == 1)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    assert asyncio.run(scenario())[0]["labels"]["alertname"] == "CpuSaturated"
