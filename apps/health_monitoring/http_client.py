"""One HTTP request, with one deadline for all of it.

The standard library's client blocks, and its timeout is per socket operation: a receiver that sends a byte a second
would hold a thread for ever. A POST over asyncio streams is fewer lines than guarding against that, and can be
cancelled. No redirects, no proxies, no keep-alive.
"""

import asyncio
import base64
import ssl
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from streamcore.errors import UsageError

BODY_MAX_BYTES = 64 << 10  # of an answer; more is not read


class Response(NamedTuple):
    status: int
    body: bytes


def checked_url(url: str) -> SplitResult:
    """Raises: UsageError: not an http or https address with a host."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not False
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{url!r} is no address for notifications; it should look like http://host:port/path")
    return parts


async def post(url: str, body: bytes, *, headers: dict[str, str] | None = None, timeout_s: float = 5.0) -> Response:
    """POST `body` as JSON.

    Raises:
        OSError, TimeoutError: not delivered, or nobody knows.
        ValueError: what came back is no HTTP.
    """
    parts = checked_url(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = {
        "Host": parts.netloc.rsplit("@", 1)[-1],
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "User-Agent": "streamcore-health-monitoring",
        **(headers or {}),
    }
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        fields["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context() if secure else None)
        try:
            writer.write(head.encode("latin-1", "replace") + body)
            await writer.drain()
            return await _response(reader)
        finally:
            writer.transport.abort()  # "Connection: close": there is nothing to say goodbye for


async def _response(reader: asyncio.StreamReader) -> Response:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ConnectionError("the connection ended before an answer") from error
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise ValueError(f"this is no HTTP: {lines[0][:80]!r}")
    length = next((line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("content-length:")), "")
    wanted = min(int(length), BODY_MAX_BYTES) if length.isdigit() else BODY_MAX_BYTES
    body = b""
    while len(body) < wanted and (chunk := await reader.read(wanted - len(body))):
        body += chunk
    return Response(int(words[1]), body)
