"""What real senders put on the wire: util-linux's logger, rsyslogd and syslog-ng, each over UDP and TCP."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from apps.health_monitoring.models import LogLine
from apps.health_monitoring.syslog_receiver import SyslogReceiver
from tests.interop.debian import library_environment, unpacked

pytestmark = pytest.mark.interop

PATIENCE_S = 30.0
TEXT = "EXT4-fs error (device sdb1): ext4_find_entry: reading directory lblock 0"


def missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing, and CI must have it")
    pytest.skip(f"{what} is not on this machine")


def program(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        missing(f"{name} (Debian package {package})")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def rsyslogd(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, str]]:
    """Command and environment. Where it is not installed (it conflicts with syslog-ng), its packages are unpacked."""
    installed = shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin")
    if installed:
        return [installed], dict(os.environ)
    root = unpacked(tmp_path_factory.mktemp("rsyslog"), "rsyslog", "libestr0", "libfastjson4", "liblognorm5")
    (modules,) = root.glob("usr/lib/*/rsyslog")
    return [str(root / "usr/sbin/rsyslogd"), "-M", str(modules)], library_environment(root)


class Inbox:
    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self._changed = asyncio.Condition()

    async def send(self, line: LogLine) -> None:
        async with self._changed:
            self.lines.append(line)
            self._changed.notify_all()

    async def first(self, wanted: Callable[[LogLine], bool]) -> LogLine:
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: any(map(wanted, self.lines)))
        return next(filter(wanted, self.lines))


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[SyslogReceiver, Inbox]]:
    inbox = Inbox()
    receiver = SyslogReceiver(inbox.send, port=0)
    task = asyncio.create_task(receiver.run())
    await receiver.started.wait()
    try:
        yield receiver, inbox
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, errors.decode()


async def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


@pytest.mark.parametrize("form", ["--rfc3164", "--rfc5424"])
@pytest.mark.parametrize("way", [["-d"], ["-T"], ["-T", "--octet-count"]], ids=" ".join)
def test_logger(form: str, way: list[str]) -> None:
    logger = program("logger", "bsdutils")

    async def scenario() -> LogLine:
        async with receiving() as (receiver, inbox):
            to = ["-n", "127.0.0.1", "-P", str(receiver.port)]
            await run(logger, *to, *way, form, "-p", "daemon.crit", "-t", "kernel", "--id=77", TEXT)
            return await inbox.first(lambda line: True)

    line = asyncio.run(scenario())
    assert line.format == form.removeprefix("--")
    assert (line.facility, line.severity, line.app, line.pid) == ("daemon", "crit", "kernel", "77")
    assert line.message == TEXT
    assert line.host == socket.gethostname().split(".")[0]
    assert line.claimed is None
    assert abs((line.time - line.received).total_seconds()) < 10
    if form == "--rfc5424":
        assert line.structured["timeQuality"]["tzKnown"] == "1"


def test_logger_sends_a_long_line_whole_by_tcp() -> None:
    logger = program("logger", "bsdutils")
    text = "x" * 60_000

    async def scenario() -> LogLine:
        async with receiving() as (receiver, inbox):
            to = ["-n", "127.0.0.1", "-P", str(receiver.port), "-T", "--octet-count", "--size", "64KiB"]
            await run(logger, *to, "-t", "long", text)
            return await inbox.first(lambda line: line.app == "long")

    line = asyncio.run(scenario())
    assert (line.message, line.truncated) == (text, False)


@pytest.mark.parametrize(
    "form", ["RSYSLOG_ForwardFormat", "RSYSLOG_SyslogProtocol23Format", "RSYSLOG_TraditionalForwardFormat"]
)
@pytest.mark.parametrize("way", ["udp", "tcp", "tcp octet-counted"])
def test_rsyslogd(rsyslogd: tuple[list[str], dict[str, str]], tmp_path: Path, form: str, way: str) -> None:
    logger = program("logger", "bsdutils")
    command, environment = rsyslogd

    async def scenario() -> LogLine:
        async with receiving() as (receiver, inbox):
            protocol, framing = way.split(" ")[0], 'TCP_Framing="octet-counted"' if "octet" in way else ""
            inlet = tmp_path / "log.sock"
            config = tmp_path / "rsyslog.conf"
            config.write_text(
                f'global(workDirectory="{tmp_path}")\n'
                f'module(load="imuxsock" SysSock.Use="off")\ninput(type="imuxsock" Socket="{inlet}")\n'
                f'*.* action(type="omfwd" target="127.0.0.1" port="{receiver.port}" protocol="{protocol}" '
                f'template="{form}" {framing})\n'
            )
            process = await asyncio.create_subprocess_exec(
                *command, "-n", "-f", str(config), "-i", str(tmp_path / "pid"), env=environment
            )
            try:
                await appears(inlet)
                await run(logger, "-u", str(inlet), "-p", "daemon.err", "-t", "nginx", "--id=812", TEXT)
                return await inbox.first(lambda line: line.app == "nginx")
            finally:
                await stop(process)

    line = asyncio.run(scenario())
    assert line.format == ("rfc5424" if "23" in form else "rfc3164")
    assert (line.facility, line.severity, line.pid) == ("daemon", "err", "812")
    assert line.message.strip() == TEXT
    assert line.host == socket.gethostname().split(".")[0]
    assert line.claimed is None


@pytest.mark.parametrize("driver", ["network", "syslog"])
@pytest.mark.parametrize("way", ["udp", "tcp"])
def test_syslog_ng(tmp_path: Path, driver: str, way: str) -> None:
    syslog_ng, logger = program("syslog-ng", "syslog-ng-core"), program("logger", "bsdutils")

    async def scenario() -> LogLine:
        async with receiving() as (receiver, inbox):
            inlet, control = tmp_path / "log.sock", tmp_path / "control"
            config = tmp_path / "syslog-ng.conf"
            config.write_text(
                "@version: current\n"
                f'source s {{ unix-dgram("{inlet}"); }};\n'
                f'destination d {{ {driver}("127.0.0.1" port({receiver.port}) transport("{way}")); }};\n'
                "log { source(s); destination(d); };\n"
            )
            process = await asyncio.create_subprocess_exec(
                syslog_ng, "-F", "--no-caps", "-f", str(config), "-R", str(tmp_path / "persist"),
                "-c", str(control), "-p", str(tmp_path / "pid"),
            )  # fmt: skip
            try:
                await appears(inlet)
                await run(logger, "-u", str(inlet), "-p", "daemon.err", "-t", "nginx", "--id=812", TEXT)
                return await inbox.first(lambda line: line.app == "nginx")
            finally:
                await stop(process)

    line = asyncio.run(scenario())
    # `network` speaks RFC 3164, `syslog` RFC 5424 (octet-counted over TCP).
    assert line.format == ("rfc5424" if driver == "syslog" else "rfc3164")
    assert (line.facility, line.severity, line.pid) == ("daemon", "err", "812")
    assert line.message == TEXT
    assert line.host == socket.gethostname().split(".")[0]
    assert line.claimed is None


async def appears(path: Path) -> None:
    """Another program's doing, so there is nothing to wait on but the file itself."""
    async with asyncio.timeout(PATIENCE_S):
        while not path.exists():  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.02)
