"""What pages in a browser may do on the OpenAI-compatible port. Tokens are the business of `token_check`."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_grpc.http.openai.errors import ApiError
from mlx_grpc.listening import is_loopback

LOCAL_ENDINGS = (".localhost", ".local", ".internal")
"""Names that nobody can own; `host.docker.internal` is how a chat page in a container calls its host."""


def headers_of(scope: Scope) -> dict[str, str]:
    """A call's headers, names in small letters; of a header sent twice, the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def origin_allowed(headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    """Whether a WebSocket may be opened: browsers send the page's origin, and ask for no leave as for other calls.

    Programs send none; a page of this very server is at home.
    """
    origin = headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return True
    return bool(netloc := _split(origin)[0]) and netloc == headers.get("host", "").lower()


class LocalNames:
    """Around an app on a loopback address: refuses names that an attacker can own and point here, so that their page
    would count as this server's own (DNS rebinding). Names of the allowed origins are as good as local ones."""

    def __init__(self, app: ASGIApp, host: str, origins: Collection[str]) -> None:
        self._app = app
        self._guarded = is_loopback(host) and "*" not in origins
        self._names = frozenset(_split(origin)[1] for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        app: ASGIApp = self._app
        host = headers_of(scope).get("host", "") if self._guarded else ""
        if not is_local_name(host) and _split(f"//{host}")[1] not in self._names:
            reason = "a server on a loopback address answers to local names, and to those that --cors-origin names"
            error = ApiError(403, reason, code="wrong_host")
            app = Response(error.body(), error.status, media_type="application/json")
        await app(scope, receive, send)


def is_local_name(host: str) -> bool:
    """Whether a Host header names an address, this machine, or nothing that is on the internet."""
    name = _split(f"//{host}")[1]
    if not name or "." not in name or name.endswith(LOCAL_ENDINGS):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _split(url: str) -> tuple[str, str]:
    """Host with port, and the host's name, in small letters; "" where they cannot be read."""
    try:
        parts = urlsplit(url)
        return parts.netloc.lower(), parts.hostname or ""
    except ValueError:
        return "", ""
