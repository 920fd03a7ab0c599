"""The pages of health monitoring: `/`, `/alarms` and one per host, over the live feed at /health/events."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from apps.health_monitoring.page.board import Board
from apps.health_monitoring.page.series import NAME_MAX
from streamcore.web.assets import Assets
from streamcore.web.payload import dump
from streamcore.web.queries import text
from streamcore.web.views import Handler, View

EVENTS = "/health/events"
STYLES = ("/health/static/health.css",)


class HasPages(Protocol):
    """An app that pages can be added to."""

    def page(self, path: str, *, title: str | None = None) -> Callable[[Handler], Any]: ...


def register(app: HasPages, board: Board) -> None:
    """Add the health pages to an app; whoever feeds the board decides what they show."""
    assets = Assets("apps.health_monitoring.page")

    @app.page("/", title="Health")
    async def health(view: View, request: Any) -> Any:
        return view.page("Health", module="/health/static/health.js", styles=STYLES, events=EVENTS)

    @app.page("/alarms", title="Alarms")
    async def alarms(view: View, request: Any) -> Any:
        return view.page("Alarms", module="/health/static/alarms.js", styles=STYLES, events=EVENTS)

    @app.page("/health/host")
    async def host(view: View, request: Any) -> Any:
        name = text(request.query_params, "name", length_max=NAME_MAX)
        events = f"{EVENTS}?{request.url.query}"
        return view.page(name or "Host", module="/health/static/host.js", styles=STYLES, events=events)

    @app.page("/health/static/{name}")
    async def static(view: View, request: Any, name: str) -> Any:
        return assets.response(name, request)

    @app.page("/health/board")
    async def board_json(view: View, request: Any) -> Any:
        """The same as text, for scripts."""
        return view.json(board.snapshot())

    @app.page(EVENTS)
    async def events(view: View, request: Any) -> Any:
        name = text(request.query_params, "name", length_max=NAME_MAX)
        seen = -1  # what this listener has
        detail = -1

        async def changes() -> list[tuple[str, bytes]]:
            nonlocal seen, detail
            delta = board.delta(seen)
            seen = delta["version"]
            # Hundreds of hosts make some hundred kilobytes: not on the loop that also serves the agents.
            sent = [("health", await asyncio.to_thread(dump, delta))]
            if name and (known := board.host(name)) is not None and known["version"] != detail:
                detail = known["version"]
                sent.append(("host", dump(known)))
            return sent

        return view.stream(changes)
