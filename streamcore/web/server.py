"""The web server: status pages for any app, the app's own pages, metrics and probes, inside the worker's own loop."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from streamcore.clock import Clock
from streamcore.errors import StreamcoreError, UsageError
from streamcore.web.api import Api
from streamcore.web.assets import Assets, Plotly, plotly_path
from streamcore.web.cluster import ClusterView
from streamcore.web.feed import Events, Feed
from streamcore.web.payload import dump
from streamcore.web.security import LocalHosts, SecurityHeaders
from streamcore.web.shell import Link, Shell
from streamcore.web.views import Page, View, WebWorker, as_response

logger = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]

# Pages every app has; a page of the app with the same path comes first. Path, title, module, in the navigation.
Generic = Sequence[tuple[str, str, str, bool]]
GENERIC: Generic = (
    ("/", "Overview", "overview.js", False),
    ("/overview", "Overview", "overview.js", True),
    ("/topics", "Topics", "topics.js", True),
    ("/topics/{topic}", "Topic", "topic.js", False),
    ("/topics/{topic}/{partition}", "Records", "records.js", False),
    ("/groups", "Groups", "groups.js", True),
    ("/groups/{group:path}", "Group", "group.js", False),
    ("/cluster", "Cluster", "cluster.js", True),
    ("/tables", "Tables", "tables.js", True),
    ("/tables/{table}", "Table", "table.js", False),
    ("/agents", "Agents", "agents.js", True),
    ("/why", "Why nothing?", "why.js", True),
)
# Those that a log without an app has.
LOG_PAGES: Generic = (
    ("/", "Cluster", "cluster.js", False),
    ("/cluster", "Cluster", "cluster.js", True),
    *(page for page in GENERIC if page[0].startswith(("/topics", "/groups"))),
)
# Paths the pages and the machines around them rely on: an app cannot take them.
RESERVED = ("/api", "/assets", "/events", "/healthz", "/metrics", "/readyz", "/static")
_BRIEF = ("/static/cluster.js", "/static/group.js")
_PARAMETER = re.compile(r"\{[a-zA-Z_]\w*(:(str|int|float|path|uuid))?\}")
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]  # a page of an app may take any, as in Faust


def create_web(worker: WebWorker, *, clock: Clock, local_only: bool = False) -> Starlette:
    """The application: generic pages, the app's pages and mounts, probes.

    Args:
        local_only: refuse requests under names that are not this machine's.

    Raises:
        UsageError: a page or mount of the app with a path that is taken or cannot be read.
    """
    feed = Feed(worker, clock)
    generic: Generic = getattr(worker, "generic_pages", GENERIC)
    # "Why nothing?" is about agents.
    explained = any(path == "/why" for path, *_ in generic)
    shell = Shell(_app_name(worker), _navigation(worker, generic), plotly_path(), state="/why" if explained else "/")
    api = Api(worker, feed)
    cluster = ClusterView(worker.log_status, clock)
    assets = Assets("streamcore.web")
    plotly = Plotly()

    async def static(request: Request) -> Response:
        return assets.response(request.path_params["name"], request)

    async def script(request: Request) -> Response:
        if plotly_path() != request.url.path:
            raise HTTPException(404, "plotly is not installed in this version; pip install plotly")
        return await plotly.response(request)

    async def events(request: Request) -> Response:
        return feed.response(_nothing_more if "brief" in request.query_params else None)

    async def metrics(request: Request) -> Response:
        refresh = getattr(worker, "refresh_metrics", None)
        if refresh is not None:  # gauges that are counted only when somebody looks
            await refresh()
        own = getattr(worker, "metrics_registry", None)
        # The worker's own, and whatever the app and its libraries count in the default registry.
        body = generate_latest(own) if own is not None else b""
        return Response(body + generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    async def healthz(request: Request) -> Response:
        return _probe(worker.healthy(), "healthy")

    async def readyz(request: Request) -> Response:
        return _probe(worker.ready(), "ready")

    get = ["GET"]
    routes: list[BaseRoute] = [
        Route("/healthz", healthz, methods=get),
        Route("/readyz", readyz, methods=get),
        Route("/metrics", metrics, methods=get),
        Route("/events", events, methods=get),
        Route("/static/{name:path}", static, methods=get),
        Route("/assets/{name:path}", script, methods=get),
        Route("/api/status", api.status, methods=get),
        Route("/api/topics/{topic}/{partition}/records", api.records, methods=get),
        Route("/api/tables/{table}/rows", api.rows, methods=get),
        Route("/api/cluster", cluster.overview, methods=get),
        Route("/api/cluster/partitions", cluster.partitions, methods=get),
        Route("/api/cluster/groups", cluster.groups, methods=get),
        Route("/api/cluster/group", cluster.group, methods=get),
        Route("/api/cluster/connections", cluster.connections, methods=get),
    ]
    routes += [_page_route(page, shell, feed, worker) for page in worker.pages]
    routes += [_mount(path, app) for path, app, _ in worker.mounts]
    routes += [
        Route(path, _generic(title, f"/static/{module}", shell), methods=get, name=f"streamcore:{path}")
        for path, title, module, _ in generic
    ]

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _refusal(request, shell, error.status_code, error.detail, error.headers)

    async def fail(request: Request, error: Exception) -> Response:
        logger.error("the page %s failed", request.url.path, exc_info=error)
        if isinstance(error, StreamcoreError):
            return _refusal(request, shell, 503, str(error))
        return _refusal(request, shell, 500, "This page failed; the worker's log has the error.")

    middleware = [Middleware(LocalHosts)] if local_only else []
    web = Starlette(
        routes=routes,
        middleware=[Middleware(SecurityHeaders), *middleware],
        exception_handlers={HTTPException: refuse, StreamcoreError: fail, Exception: fail},
    )
    web.state.feed = feed
    return web


def _app_name(worker: WebWorker) -> str:
    services = getattr(worker, "services", None)
    return str(getattr(worker, "app_id", None) or getattr(getattr(services, "config", None), "id", "streamcore"))


async def _nothing_more() -> Events:
    return []


def _navigation(worker: WebWorker, pages: Generic) -> list[Link]:
    own = [Link(page.path, page.title) for page in worker.pages if page.in_navigation and page.title]
    own += [Link(path, title) for path, _, title in worker.mounts if title]
    has_root = any(page.path == "/" for page in worker.pages)
    front = "/overview" if pages is GENERIC else "/cluster"
    generic = [Link("/" if path == front and not has_root else path, title) for path, title, _, shown in pages if shown]
    taken = {link.path for link in own}
    # The app's front page leads; its other pages follow it, then what every app has.
    own.sort(key=lambda link: link.path != "/")
    return own + [link for link in generic if link.path not in taken]


def _check_path(path: str) -> None:
    for taken in RESERVED:
        if path == taken or path.startswith(taken + "/"):
            raise UsageError(f"page({path!r}): {taken} is taken by the worker's own endpoints; choose another path")


def _page_route(page: Page, shell: Shell, feed: Feed, worker: WebWorker) -> Route:
    _check_path(page.path)

    async def endpoint(request: Request) -> Response:
        view = View(request, shell, feed, worker)
        return as_response(await page.handler(view, request, **request.path_params), page)

    if set(_PARAMETER.sub("", page.path)) & set("{}"):
        raise UsageError(f"page({page.path!r}): a path parameter is {{name}}, {{name:int}} or {{name:path}}")
    name = getattr(page.handler, "__name__", page.path)
    return Route(page.path, endpoint, methods=METHODS, name=name)


def _mount(path: str, app: Any) -> Mount:
    _check_path(path)
    if not path.startswith("/") or path == "/":
        raise UsageError(f"mount({path!r}): a path such as '/files' is needed")
    return Mount(path.rstrip("/"), app)


def _generic(title: str, module: str, shell: Shell) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        # The cluster's pages ask for what they show, and need no more of the feed than the state.
        events = "/events?brief" if module in _BRIEF else "/events"
        return HTMLResponse(shell.render(title, request.url.path, module=module, events=events))

    return endpoint


def _probe(answer: tuple[bool, str], word: str) -> Response:
    fine, reason = answer
    body = {word: fine, "reason": reason or None}
    return Response(dump(body), 200 if fine else 503, {"Cache-Control": "no-store"}, "application/json")


def _refusal(request: Request, shell: Shell, status: int, detail: str, headers: Any = None) -> Response:
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return Response(dump({"error": detail, "status": status}), status, headers, "application/json")
    title = {400: "That cannot be asked", 404: "There is no such page", 405: "This can only be read"}.get(
        status, "That failed"
    )
    if status == 404 and detail == "Not Found":
        detail = f"Nothing is served at {request.url.path[:200]}. The pages are listed above."
    return HTMLResponse(shell.plain(title, detail), status, headers)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the worker decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class WebServer:
    """Serves a worker's pages from the worker's own event loop."""

    def __init__(self, worker: WebWorker, *, clock: Clock) -> None:
        self._worker = worker
        self._clock = clock
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._feed: Feed | None = None
        self.host = ""
        self.port = 0

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"

    async def start(self, host: str = "127.0.0.1", port: int = 6066) -> None:
        """Listen; returns when requests are answered. Port 0 takes a free one.

        Raises:
            UsageError: the port is in use or may not be taken, the host is no address of this machine.
        """
        listener = _listen(host, port)
        self.host, self.port = host, listener.getsockname()[1]
        web = create_web(self._worker, clock=self._clock, local_only=_is_loopback(host))
        self._feed = web.state.feed
        config = uvicorn.Config(
            web,
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=1,
            limit_concurrency=500,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="web")
        while not self._server.started:
            if self._task.done():
                await self._task
                raise UsageError(f"the web server on {host}:{port} ended at once; --without-web starts without it")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stop listening; open streams end, requests in progress have a second to finish."""
        if self._server is None or self._task is None:
            return
        assert self._feed is not None
        self._feed.stop()
        self._server.should_exit = True
        await self._task
        self._server = self._task = None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket: bound here, and not by uvicorn, because uvicorn ends the process when it cannot."""
    where = f"{host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, OverflowError, UnicodeError) as error:
        raise UsageError(f"the web pages cannot listen on {where}: {error}; set --web-host and --web-port") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            message = (
                f"port {port} on {host} is in use by another program; choose another with --web-port, or 0 for any"
            )
        elif error.errno == errno.EACCES:
            message = f"port {port} may not be taken by this user; choose one above 1023 with --web-port"
        elif error.errno == errno.EADDRNOTAVAIL:
            message = f"{host} is no address of this machine; set --web-host to one, or to 0.0.0.0 for all"
        else:
            message = f"the web pages cannot listen on {where}: {error}; set --web-host and --web-port"
        raise UsageError(message) from error
    return listener
