"""Who may talk to the admin port. Pages of other sites, open in an operator's browser, may not."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_grpc.http.errors import plain_error
from mlx_grpc.listening import is_loopback

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
PAGE_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """Around an app: refuses names that DNS rebinding uses, changes that other sites ask for, and WebSockets; adds
    PAGE_HEADERS."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._loopback_only = is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        wrong = self._why_not(scope["method"], Headers(scope=scope))

        async def send_with_headers(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *PAGE_HEADERS]}  # type: ignore[misc]
            await send(message)

        if wrong:
            reason, text = wrong
            refusal = plain_error(403, "PERMISSION_DENIED", reason, text)
            await refusal(scope, receive, send_with_headers)  # type: ignore[arg-type]
        else:
            await self._app(scope, receive, send_with_headers)  # type: ignore[arg-type]

    def _why_not(self, method: str, headers: Headers) -> tuple[str, str] | None:
        """A reason and a text; None when there is nothing against it."""
        host = headers.get("host", "")
        # A name that an attacker owns can be made to point here; then only the name in Host tells.
        if self._loopback_only and not is_loopback(hostname(f"//{host}")):
            return "FOREIGN_HOST", f"this port answers to localhost alone, not to {host[:100]!r}"
        if method in SAFE_METHODS:
            return None
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit_netloc(origin) != host.lower()
        if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return "FOREIGN_ORIGIN", "a page of another site may not do this"
        return None


def hostname(url: str) -> str:
    """The host's name without its port; "" where it cannot be read."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def urlsplit_netloc(url: str) -> str:
    """Host and port; "" where they cannot be read."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
