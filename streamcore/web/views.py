"""Pages an app adds to its web server, and the view their handlers are given: Faust's names."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from streamcore.engine.log_status import LogStatus
from streamcore.errors import UsageError
from streamcore.web.payload import dump
from streamcore.web.shell import Shell

if TYPE_CHECKING:
    from streamcore.web.feed import Events, Feed

Handler = Callable[..., Awaitable[Any]]


class Page(NamedTuple):
    """One page of an app: `@app.page(path, title=…)` over `async def handler(view, request, **path_params)`."""

    path: str  # starts with "/"; "{name}" is a path parameter
    title: str | None  # in the browser's tab and the navigation
    handler: Handler
    in_navigation: bool = False

    @classmethod
    def of(cls, path: str, handler: Handler, *, title: str | None = None, in_navigation: bool | None = None) -> "Page":
        """Check a page; it is in the navigation when it has a title and no path parameter.

        Raises:
            UsageError: a path that does not start with a slash.
        """
        if not path.startswith("/"):
            raise UsageError(f"page({path!r}): a path starts with '/', as in page('/{path}')")
        if in_navigation is None:
            in_navigation = title is not None and "{" not in path
        return cls(path, title, handler, in_navigation)


class WebWorker(Protocol):
    """What the pages need of a worker."""

    @property
    def pages(self) -> Sequence[Page]: ...
    @property
    def mounts(self) -> Sequence[tuple[str, ASGIApp, str | None]]:
        """Sub-applications: path, application, title in the navigation (None: not in it)."""
        ...

    @property
    def log_status(self) -> LogStatus:
        """The log that the worker works on."""
        ...

    async def status(self) -> dict[str, Any]: ...
    def healthy(self) -> tuple[bool, str]: ...
    def ready(self) -> tuple[bool, str]: ...
    async def read_records(self, topic: str, partition: int, offset: int, count: int) -> list[dict[str, Any]]: ...
    async def table_rows(self, table: str, prefix: str, limit: int) -> Any: ...


class View:
    """Makes responses; the first argument of a page's handler."""

    def __init__(self, request: Request, shell: Shell, feed: "Feed", worker: WebWorker) -> None:
        self.request = request
        self.worker = worker
        self.feed = feed  # the worker's status, computed once per tick for everybody
        self._shell = shell

    def json(self, value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        return Response(dump(value), status, headers, "application/json")

    def text(
        self,
        value: str,
        *,
        content_type: str | None = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        return PlainTextResponse(value, status, headers, content_type)

    def html(
        self,
        value: str,
        *,
        content_type: str | None = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Markup as it is: escape what comes from outside with `html.escape`."""
        return HTMLResponse(value, status, headers, content_type)

    def bytes(
        self,
        value: bytes,
        *,
        content_type: str | None = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        return Response(value, status, headers, content_type or "application/octet-stream")

    def notfound(self, reason: str = "Not Found", **arguments: Any) -> Response:
        return self.error(404, reason, **arguments)

    def error(self, status: int, reason: str, **arguments: Any) -> Response:
        """Faust's error document: `{"error": reason, …arguments}`."""
        return self.json({"error": reason, **arguments}, status=status)

    def page(
        self, title: str, *, module: str, styles: Sequence[str] = (), events: str = "/events", status: int = 200
    ) -> Response:
        """A page inside the common frame (navigation, state of the worker, banner when the connection is lost).

        Args:
            module: path of the JavaScript module that fills `<main>`; served by this server.
            styles: paths of further style sheets.
            events: where the page's server-sent events come from; they must carry `status` events, as `stream` does.
        """
        current = self.request.url.path
        return HTMLResponse(self._shell.render(title, current, module=module, styles=styles, events=events), status)

    def stream(self, events: "Callable[[], Awaitable[Events]]") -> Response:
        """Server-sent events: once per tick, what `events()` returns as (event, JSON bytes) beside the status."""
        return self.feed.response(events)

    def url_for(self, _name: str, /, **path_params: Any) -> str:
        """The path of another page, by its handler's name."""
        return str(self.request.app.url_path_for(_name, **path_params))

    path_for = url_for


def as_response(value: Any, page: Page) -> Response:
    """What a handler returned, as a response.

    Raises:
        TypeError: something that is no answer.
    """
    if isinstance(value, Response):
        return value
    if isinstance(value, dict | list):
        return Response(dump(value), media_type="application/json")
    raise TypeError(
        f"page {page.path} returned {type(value).__name__}: return view.json(…), view.html(…) or a Response"
    )
