"""Scripts and styles: our own from the package, plotly.js from the installed `plotly`."""

import asyncio
import gzip
import hashlib
import importlib.metadata
import importlib.util
from importlib.resources import files
from pathlib import PurePosixPath

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".html": "text/html; charset=utf-8",
}


class Assets:
    """The files of one package directory, read once, served with an ETag.

    Browsers ask again each time and are told 304: a worker that was upgraded never meets yesterday's scripts.
    """

    def __init__(self, package: str, directory: str = "static") -> None:
        self._root = files(package).joinpath(directory)
        self._files: dict[str, tuple[bytes, str]] = {}

    def response(self, name: str, request: Request) -> Response:
        """One file.

        Raises:
            HTTPException: 404 for anything that is not a script, style or picture of this directory.
        """
        media_type = MEDIA_TYPES.get(PurePosixPath(name).suffix)
        if media_type is None or "/" in name or "\\" in name or name.startswith("."):
            raise HTTPException(404, f"there is no file {name!r}")
        if name not in self._files:
            try:
                content = self._root.joinpath(name).read_bytes()
            except OSError:
                raise HTTPException(404, f"there is no file {name!r}") from None
            self._files[name] = content, '"' + hashlib.sha256(content).hexdigest()[:16] + '"'
        content, etag = self._files[name]
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)


def plotly_path() -> str | None:
    """Where plotly.js is served; None where the package is not installed. The version is in the path, so it may be
    cached for ever."""
    if importlib.util.find_spec("plotly") is None:
        return None
    try:
        return f"/assets/plotly-{importlib.metadata.version('plotly')}.js"
    except importlib.metadata.PackageNotFoundError:
        return None


class Plotly:
    """plotly.js as `plotly.offline.get_plotlyjs()` gives it, compressed once (4.8 MB become 1.4 MB)."""

    def __init__(self) -> None:
        self._script: tuple[bytes, bytes] | None = None
        self._lock = asyncio.Lock()

    async def response(self, request: Request) -> Response:
        async with self._lock:
            if self._script is None:
                self._script = await asyncio.to_thread(_read_plotly)
        plain, zipped = self._script
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(zipped, headers=headers | {"Content-Encoding": "gzip"}, media_type=MEDIA_TYPES[".js"])
        return Response(plain, headers=headers, media_type=MEDIA_TYPES[".js"])


def _read_plotly() -> tuple[bytes, bytes]:
    from plotly.offline import get_plotlyjs

    script: bytes = get_plotlyjs().encode()
    return script, gzip.compress(script, 6)
