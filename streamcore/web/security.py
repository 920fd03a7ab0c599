"""Headers every answer carries, and who may ask: the pages hold hostile text (log lines, host names)."""

import ipaddress
import socket

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing from another host, no inline script or style, no plugin, no frame, no form to elsewhere.
# data: images are what plotly.js draws its download from.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class SecurityHeaders:
    """Adds HEADERS where an answer does not set them itself, so that a page of the app may loosen its own policy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class LocalHosts:
    """Refuses names that are not this machine's, while the server listens on loopback alone.

    A web page elsewhere could point its own name at 127.0.0.1 and read the log through the visitor's browser (DNS
    rebinding); the browser still sends that page's name in `Host`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        machine = socket.gethostname().lower()
        self._names = {"", "localhost", machine, machine.split(".")[0], "testserver"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            host = Headers(scope=scope).get("host", "")
            if not self._is_local(host):
                answer = PlainTextResponse(
                    f"This server listens for this machine alone and does not know itself as {host[:100]!r}. Open it "
                    "as http://localhost, or set web_host to the address it should serve.\n",
                    421,
                )
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_local(self, host: str) -> bool:
        name = host.lower()
        name = name[1:].split("]")[0] if name.startswith("[") else name.rsplit(":", 1)[0] if ":" in name else name
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # an address cannot be rebound
