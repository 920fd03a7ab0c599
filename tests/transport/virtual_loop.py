"""An event loop whose time passes only when nobody has anything to do; waiting for a thread or a socket is an error."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _NoWait(selectors.SelectSelector):
    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("nothing is scheduled: somebody waits for something that cannot come")
        self.loop.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 1000.0
        selector = _NoWait()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, with a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        # A thread would wake the loop over a socket that nobody here listens to.
        loop.run_in_executor = _no_threads  # type: ignore[method-assign, assignment]
        return runner.run(main)


def _no_threads(*_: object) -> None:
    raise AssertionError("no threads here")
