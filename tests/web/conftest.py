"""A real server in a thread of its own, and a real browser."""

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from apps.health_monitoring.page.board import Board
from apps.health_monitoring.page.page import register
from streamcore.clock import ManualClock
from streamcore.web.server import WebServer
from tests.web.fake_fleet import Fleet
from tests.web.fake_worker import RULES, FakeWorker, fill

# What Debian's Chromium needs to start anywhere, and what keeps it from asking other hosts by itself.
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


expect.set_options(timeout=20_000)  # of patience with a busy machine; nothing waits longer than it must


class Site:
    """A fake worker with its pages on a free port."""

    def __init__(self, *, health: bool = True, empty: bool = False, hostile: bool = True) -> None:
        self.worker = FakeWorker(empty=empty)
        # The fleet's time stands still: no host falls silent because a test takes its time.
        self.clock = ManualClock(self.worker.clock.now_ms())
        self.board = Board(RULES, clock=self.clock)
        self.fleet = Fleet(self.clock.now_ms(), hostile=hostile)
        if health:
            register(self.worker, self.board)
        if not empty:
            fill(self.board, self.fleet, self.clock.now_ms())
        self.server = WebServer(self.worker, clock=self.worker.clock)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="site")
        self._thread.start()
        self._port = 0
        self.listen()

    def listen(self) -> None:
        self._wait(self.server.start("127.0.0.1", self._port))
        self._port = self.server.port

    def stop_listening(self) -> None:
        self._wait(self.server.stop())

    def call(self, function: Callable[[], Any]) -> Any:
        """Run in the server's own thread, where boards and workers are fed."""

        async def run() -> Any:
            return function()

        return self._wait(run())

    def close(self) -> None:
        self.stop_listening()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; one per module, because Playwright keeps an event loop in this thread while it runs."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        reason = "the pages are tested in Chromium, and there is none: apt install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()
