"""The frame around every page: navigation, the worker's state, a banner, and nothing else. Data comes by script."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Link(NamedTuple):
    """An entry of the navigation."""

    path: str
    title: str


class Shell:
    """Renders the frame; the same for all pages but for title, script and styles."""

    def __init__(self, app: str, navigation: Sequence[Link], plotly: str | None, *, state: str) -> None:
        self._app = app
        self._navigation = navigation
        self._state = state  # path of the page that explains the worker's state
        self._plotly = plotly  # path of plotly.js; None where the package is not installed

    def render(
        self, title: str, current: str, *, module: str, styles: Sequence[str] = (), events: str = "/events"
    ) -> str:
        """The document.

        Args:
            current: the page's own path, which the navigation marks.
            module: path of the script that fills `<main>`.
        """
        links = "".join(
            f'<a href="{escape(link.path)}"{self._mark(link.path, current)}>{escape(link.title)}</a>'
            for link in self._navigation
        )
        sheets = "".join(f'<link rel="stylesheet" href="{escape(path)}">' for path in ("/static/style.css", *styles))
        return f"""<!doctype html>
<html lang="en" data-events="{escape(events)}" data-plotly="{escape(self._plotly or "")}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · {escape(self._app)}</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
{sheets}
<script type="module" src="/static/frame.js"></script>
<script type="module" src="{escape(module)}"></script>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="bar">
<a class="brand" href="/"><svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">
<path d="M2 6h9M2 10h16M2 14h6" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round"/></svg>
<b>{escape(self._app)}</b></a>
<nav aria-label="Pages">{links}</nav>
<span class="state" role="status">
<a class="chip" id="state" href="{escape(self._state)}"><i class="dot"></i><span>connecting …</span></a></span>
</header>
<div id="banner" class="banner" role="alert" hidden></div>
<main id="main" tabindex="-1">
<noscript><p class="blank">These pages are live and need JavaScript. As text: <a href="/api/status">/api/status</a>,
<a href="/metrics">/metrics</a>, <a href="/healthz">/healthz</a>.</p></noscript>
</main>
</body>
</html>
"""

    def plain(self, title: str, sentence: str) -> str:
        """A page of one sentence, for errors."""
        links = "".join(f'<a href="{escape(link.path)}">{escape(link.title)}</a>' for link in self._navigation)
        return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{escape(title)} · {escape(self._app)}</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml"><link rel="stylesheet" href="/static/style.css"></head>
<body><a class="skip" href="#main">Skip to the content</a>
<header class="bar"><a class="brand" href="/"><b>{escape(self._app)}</b></a>
<nav aria-label="Pages">{links}</nav></header>
<main id="main" tabindex="-1" class="plain"><h1>{escape(title)}</h1><p>{escape(sentence)}</p></main></body></html>
"""

    @staticmethod
    def _mark(path: str, current: str) -> str:
        here = path == current or (path != "/" and current.startswith(path.rstrip("/") + "/"))
        return ' aria-current="page"' if here else ""
