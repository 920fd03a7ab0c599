"""A broker's own pages: those of a worker that are about the log, and nothing about agents or tables."""

from typing import Any

from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from streamcore.clock import Clock
from streamcore.engine.log_status import LogStatus
from streamcore.errors import StreamcoreError, UsageError
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.web.server import LOG_PAGES
from streamcore.web.views import Page


class BrokerSite:
    """What the pages need, of a broker in this process."""

    generic_pages = LOG_PAGES
    app_id = "streamcore broker"

    def __init__(self, transport: EmbeddedTransport, clock: Clock) -> None:
        """`transport` is started, over the node that the broker serves."""
        self._transport = transport
        self._clock = clock
        self._started_ms = clock.now_ms()
        self.log_status = LogStatus(transport, clock)
        self.pages: list[Page] = []
        self.mounts: list[tuple[str, ASGIApp, str | None]] = []
        self.metrics_registry = CollectorRegistry(auto_describe=False)
        self.metrics_registry.register(transport.metrics())

    async def status(self) -> dict[str, Any]:
        """As a worker's, without agents and tables."""
        partitions = {info.tp: info for info in await self._transport.describe_partitions()}
        healthy, reason = self.healthy()
        return {
            "app": self.app_id,
            "state": "running",
            "started_ms": self._started_ms,
            "now_ms": self._clock.now_ms(),
            "broker": self._transport.url,
            "healthy": healthy,
            "unhealthy_reason": None if healthy else reason,
            "topics": await self.log_status.topics(partitions),
            "groups": await self.log_status.groups(partitions),
            "agents": [],
            "tables": [],
        }

    def healthy(self) -> tuple[bool, str]:
        """Whether every partition can be used, and which cannot."""
        try:
            offline = self._transport.node.directory.offline_partitions
        except StreamcoreError as error:
            return False, str(error)
        for tp, reason in offline.items():
            others = f" (and {len(offline) - 1} more)" if len(offline) > 1 else ""
            return False, f"{tp} is offline{others}: {reason}"
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Whether clients are served."""
        door = self._transport.node.door
        if door is None or door.coordinator.refusal:
            return False, "clients are not served"
        return True, "running"

    async def read_records(self, topic: str, partition: int, offset: int, count: int) -> list[dict[str, Any]]:
        return await self.log_status.records(topic, partition, offset, count)

    async def table_rows(self, table: str, prefix: str, limit: int) -> Any:
        raise UsageError("a broker has no tables; the workers have")
