"""`embedded:DIR`: the log in this process, or in another one that has the directory open already.

One process holds a directory; it is the log's host and listens for the others, who join it through that door. Where the
host ends, one of those who would have listened takes the directory over, and the rest find the new door.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from streamcore.broker.broker import Endpoint
from streamcore.broker.listener import listener_of
from streamcore.errors import BrokerUnreachableError, DirectoryHeldError, LogOfflineError, StreamcoreError
from streamcore.transport.base import GroupChannel
from streamcore.transport.client_settings import ClientSecurity, client_settings
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.transport.kafka import KafkaTransport

if TYPE_CHECKING:
    from streamcore.broker.metrics import NodeMetrics
    from streamcore.protocol.messages import Api

logger = logging.getLogger(__name__)

# A host that has just begun says where it listens a moment later; a command that has the directory open never does,
# and is done soon.
JOIN_FOR_S: Final = 3.0
JOIN_RETRY_S: Final = 0.05
TAKE_OVER_CHECK_S: Final = 0.5  # a try to take over costs one system call while there is a host


class SharedDirectoryTransport:
    """A `Transport`: every other method of it is the one of the transport inside.

    Args:
        make: makes the transport for the directory in this process.
        path: of the directory.
        client: settings of TLS and login, for a host that wants them of who joins.
    """

    def __init__(
        self, make: Callable[[], EmbeddedTransport], path: str, url: str, client: Mapping[str, str] | str = ""
    ) -> None:
        self.url = url
        self._client = client
        self._make = make
        self._path = path
        self._inner: EmbeddedTransport | KafkaTransport | None = None
        self._heir: asyncio.Task[None] | None = None

    def __getattr__(self, name: str) -> Any:
        inner = self.__dict__.get("_inner")
        if inner is None:
            raise LogOfflineError(f"{self.url} is not open: await start() comes first")
        return getattr(inner, name)

    @property
    def embedded(self) -> EmbeddedTransport | None:
        """The log, where it is in this process."""
        return self._inner if isinstance(self._inner, EmbeddedTransport) else None

    async def start(self) -> None:
        if self._inner is not None:
            return
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + JOIN_FOR_S
        while True:
            try:
                self._inner = await self._open()
                return
            except (DirectoryHeldError, BrokerUnreachableError):
                if loop.time() >= deadline_s:
                    raise
            await asyncio.sleep(JOIN_RETRY_S)

    async def _open(self) -> EmbeddedTransport | KafkaTransport:
        """The log here, or the way to it.

        Raises:
            DirectoryHeldError: another process has it, and does not say where it listens.
            BrokerUnreachableError: it does not answer there.
        """
        embedded = self._make()
        try:
            await embedded.start()
            return embedded
        except DirectoryHeldError:
            if listener_of(self._path) is None:
                raise
        joined = KafkaTransport(
            self._addresses, url=self.url, security=ClientSecurity.parse(client_settings(self._client))
        )
        try:
            await joined.start()
        except BaseException:
            await joined.stop()
            raise
        logger.info("joined the log in %s, which another process keeps", self._path)
        return joined

    def _addresses(self) -> list[tuple[str, int]]:
        endpoint = listener_of(self._path)
        return [(endpoint.host, endpoint.port)] if endpoint is not None else []

    async def listen(self, host: str, port: int) -> Endpoint | None:
        """Serve the log to Kafka clients as well: now, or as soon as it is ours.

        Returns:
            Where; None where somebody else does.
        """
        if (embedded := self.embedded) is not None:
            return await embedded.listen(host, port)
        self._heir = asyncio.create_task(self._take_over(host, port), name="heir of the log")
        return None

    async def _take_over(self, host: str, port: int) -> None:
        """Wait for the host's end, and be the next one."""
        while True:
            await asyncio.sleep(TAKE_OVER_CHECK_S)
            embedded = self._make()
            try:
                await embedded.start()
                endpoint = await embedded.listen(host, port)
            except DirectoryHeldError:
                continue
            except StreamcoreError as error:
                logger.error("the log in %s cannot be taken over: %s", self._path, error)
                await embedded.stop()
                continue
            joined, self._inner = self._inner, embedded
            where = f"; Kafka clients reach it at {endpoint.host}:{endpoint.port}" if endpoint is not None else ""
            logger.info("this process keeps the log in %s from now on%s", self._path, where)
            if joined is not None:
                await joined.stop()
            return

    async def stop_listening(self) -> None:
        heir, self._heir = self._heir, None
        if heir is not None:
            heir.cancel()
            await asyncio.gather(heir, return_exceptions=True)
        if (embedded := self.embedded) is not None:
            await embedded.stop_listening()

    async def stop(self) -> None:
        await self.stop_listening()
        inner, self._inner = self._inner, None
        if inner is not None:
            await inner.stop()

    def metrics(self) -> "NodeMetrics":
        from streamcore.broker.metrics import NodeMetrics

        # The log comes to this process when its host ends, and then its numbers do.
        return NodeMetrics(lambda: embedded.node if (embedded := self.embedded) is not None else None)

    def group_channel(self, group: str) -> GroupChannel | None:
        assert self._inner is not None, "it has been started"
        if self._inner.group_channel(group) is None:
            return None
        return _ChangingChannel(self, group)

    def channel_now(self, group: str) -> GroupChannel:
        """The channel of this moment.

        Raises:
            BrokerUnreachableError: there is none.
        """
        channel = self._inner.group_channel(group) if self._inner is not None else None
        if channel is None:
            raise BrokerUnreachableError(f"the log in {self._path} is not open to others at the moment")
        return channel


class _ChangingChannel:
    """A `GroupChannel` to the coordinator wherever the log is kept now."""

    def __init__(self, transport: SharedDirectoryTransport, group: str) -> None:
        self._transport = transport
        self._group = group

    async def ask(self, api: "Api", request: Any, *, timeout_s: float, purpose: str = "membership") -> Any:
        channel = self._transport.channel_now(self._group)
        return await channel.ask(api, request, timeout_s=timeout_s, purpose=purpose)

    def moved(self) -> None:
        try:
            self._transport.channel_now(self._group).moved()
        except BrokerUnreachableError:
            pass  # the next request finds out
