"""The live page's files, as they lie in the package: no build step, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/static/page.css": ("page.css", "text/css; charset=utf-8"),
    "/static/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/static/dom.js": ("dom.js", "text/javascript; charset=utf-8"),
    "/static/tables.js": ("tables.js", "text/javascript; charset=utf-8"),
    "/static/curves.js": ("curves.js", "text/javascript; charset=utf-8"),
    "/static/format.js": ("format.js", "text/javascript; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}


def page_routes() -> list[Route]:
    """A route for each file; nothing else of the file system can be asked for."""
    folder = resources.files("mlx_grpc.http.admin") / "static"
    return [Route(path, _answer((folder / name).read_bytes(), kind)) for path, (name, kind) in _FILES.items()]


def _answer(body: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return Response(body, media_type=kind, headers={"Cache-Control": "no-cache"})

    return answer
