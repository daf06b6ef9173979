"""No request passes without a token, where the server has tokens. What stays open is listed."""

from __future__ import annotations

from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from mlx_grpc.auth import clients
from mlx_grpc.auth.access import Access
from mlx_grpc.auth.tokens import TokenScope
from mlx_grpc.errors import MlxGrpcError, NoToken

SUBPROTOCOL = "mlx_grpc.v1"
"""What a WebSocket of ours speaks, for browsers: they fail a socket whose server takes none of what the page offers."""
BEARER = "bearer."
"""Before the token in a page's second subprotocol: pages can set no header of a WebSocket."""

CLIENT = "mlx_grpc.client"
"""The scope's key for who calls; see `auth.clients`."""


def client_of(scope: Scope) -> str:
    """Who makes the call."""
    return str(scope.get(CLIENT) or _address(scope))


class TokenCheck:
    """Around an app's routes. `refuse` words an error as the app does."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        needed: TokenScope,
        refuse: Callable[[MlxGrpcError], Response],
        *,
        open_paths: Collection[str] = (),
        asks_browsers: bool = False,
    ) -> None:
        """`asks_browsers` has browsers ask people for the token, as the password of HTTP's Basic scheme."""
        self._app = app
        self._access = access
        self._needed = needed
        self._refuse = refuse
        self._open_paths = frozenset(open_paths)
        self._asks_browsers = asks_browsers
        self._challenge = 'Bearer realm="mlx_grpc"' + (', Basic realm="mlx_grpc"' if asks_browsers else "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            if scope["type"] != "http" or scope["path"] not in self._open_paths:
                token = self._access.require(_authorization(scope), self._needed, basic=self._asks_browsers)
                scope[CLIENT] = clients.client_name(token, _address(scope))
        except MlxGrpcError as error:
            response = self._refuse(error)
            if isinstance(error, NoToken):
                response.headers["WWW-Authenticate"] = self._challenge
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, send).send_denial_response(response)
            else:
                await response(scope, receive, send)
            return
        await self._app(scope, receive, _accepting(scope, send) if scope["type"] == "websocket" else send)


def _authorization(scope: Scope) -> list[str]:
    """The authorization headers; of a WebSocket without one, what its subprotocols say."""
    sent = Headers(scope=scope).getlist("authorization")
    if sent or scope["type"] != "websocket":
        return sent
    return [f"Bearer {name.removeprefix(BEARER)}" for name in scope["subprotocols"] if name.startswith(BEARER)]


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return clients.of_host(client[0]) if client else clients.UNKNOWN


def _accepting(scope: Scope, send: Send) -> Send:
    """Takes our subprotocol where it is offered. The one with the token is never said back."""

    async def accept(message: Message) -> None:
        if message["type"] == "websocket.accept" and SUBPROTOCOL in scope["subprotocols"]:
            message = {**message, "subprotocol": SUBPROTOCOL}
        await send(message)

    return accept
