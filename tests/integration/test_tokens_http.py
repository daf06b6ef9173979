"""Bearer tokens on the two HTTP ports: what is open is listed here, and all else needs one."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from mlx_grpc import testing
from mlx_grpc.auth.access import OPEN
from mlx_grpc.http.admin.app import make_admin_app
from mlx_grpc.http.openai.app import openai_app
from mlx_grpc.server import Server
from tests.helpers.auth import ADDRESS, Answer, TokenFolder, bearer, http_call

SCRIPT = testing.Script(replies={"ping": "pong"})
CHAT = {"messages": [{"role": "user", "content": "ping"}]}
ADMIN_OPEN = {"/healthz", "/readyz"}
HTTP_OPEN = {"/openapi.json"}


@contextmanager
def guarded(tmp_path: Path, **settings: Any) -> Iterator[tuple[TokenFolder, testing.LocalServer]]:
    """A server that needs tokens."""
    tokens = TokenFolder(tmp_path)
    with testing.run(SCRIPT, tokens=tokens.path, **settings) as server:
        yield tokens, server


def routes(server: Server) -> list[tuple[str, str, str]]:
    """Port, method and path of everything that the two apps answer."""
    apps = {
        "admin": make_admin_app(server.service, server.monitor, server.ask_to_stop, ADDRESS, OPEN),
        "http": openai_app(server.service, server.config),
    }
    found = [
        (
            port,
            sorted(route.methods or {"GET"})[-1],
            route.path.replace("{generation_id}", "x").replace("{model:path}", "x"),
        )
        for port, app in apps.items()
        for route in app.routes
        if isinstance(route, Route)
    ]
    return [*found, ("admin", "GET", "/unheard"), ("http", "GET", "/unheard"), ("admin", "PUT", "/healthz/")]


def url_of(server: testing.LocalServer, port: str) -> str:
    return {"admin": server.admin_url, "http": server.http_url}[port]


def test_every_path_but_the_listed_needs_a_token(tmp_path: Path) -> None:
    """Known or not: a new path is guarded before anybody thinks of it. The answer asks for a token, as HTTP has it."""
    with guarded(tmp_path) as (_, server):
        for port, method, path in routes(server.server):
            answer = http_call(url_of(server, port), path, method=method, body={} if method == "POST" else None)
            if path in ADMIN_OPEN | HTTP_OPEN:
                assert answer.status == 200, path
            else:
                assert answer.status == 401, path
                assert answer.headers["www-authenticate"].startswith('Bearer realm="mlx_grpc"'), path


def test_the_admin_port_needs_the_admin_scope(tmp_path: Path) -> None:
    """403 and WRONG_SCOPE with generate; metrics included, which tell of everybody's use."""
    with guarded(tmp_path) as (tokens, server):
        for path in ("/", "/admin/status", "/metrics"):
            refused = http_call(server.admin_url, path, headers=bearer(tokens.generate))
            assert (refused.status, refused.json["error"]["reason"]) == (403, "WRONG_SCOPE")
            assert http_call(server.admin_url, path, headers=bearer(tokens.admin)).status == 200


def test_a_browser_asks_for_the_token_as_a_password(tmp_path: Path) -> None:
    """On the admin port alone, whose page cannot send a header of its own for its events."""
    with guarded(tmp_path) as (tokens, server):
        password = base64.b64encode(f"me:{tokens.admin}".encode()).decode()
        assert "Basic" in http_call(server.admin_url, "/").headers["www-authenticate"]
        assert http_call(server.admin_url, "/", headers={"Authorization": f"Basic {password}"}).status == 200
        refused = http_call(server.http_url, "/v1/models", headers={"Authorization": f"Basic {password}"})
        assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Bearer realm="mlx_grpc"')


def test_a_refused_answer_carries_the_pages_headers(tmp_path: Path) -> None:
    """The admin port's protection of pages holds before the token is looked at."""
    with guarded(tmp_path) as (tokens, server):
        assert http_call(server.admin_url, "/").headers["x-frame-options"] == "DENY"
        headers = bearer(tokens.admin) | {"Origin": "http://evil.example"}
        answer = http_call(server.admin_url, "/admin/drain", method="POST", headers=headers, body={})
        assert (answer.status, answer.json["error"]["reason"]) == (403, "FOREIGN_ORIGIN")


def ask(server: testing.LocalServer, token: str | None) -> Answer:
    headers = bearer(token) if token else {}
    return http_call(server.http_url, "/v1/chat/completions", method="POST", headers=headers, body=CHAT)


def test_a_token_lets_generate(tmp_path: Path) -> None:
    """Either scope does; the refusal is in OpenAI's form."""
    with guarded(tmp_path) as (tokens, server):
        for token in (tokens.generate, tokens.admin):
            assert ask(server, token).status == 200
        refused = ask(server, "mlxgrpc_unheard-of")
        assert refused.status == 401
        assert set(refused.json["error"]) == {"message", "type", "param", "code"}
        assert b"unheard" not in refused.body


def test_a_revoked_token_is_refused_from_its_next_call_on(tmp_path: Path) -> None:
    """Without a restart; others go on."""
    with guarded(tmp_path) as (tokens, server):
        assert ask(server, tokens.generate).status == 200
        tokens.revoke("gwen")
        assert [ask(server, token).status for token in (tokens.generate, tokens.other)] == [401, 200]


def test_a_page_of_another_origin_reads_the_refusal(tmp_path: Path) -> None:
    """With leave for its origin: the preflight needs no token, which it cannot carry, and the 401 can be read."""
    origin = {"Origin": "https://chat.example"}
    with guarded(tmp_path, cors_origin=("https://chat.example",)) as (_, server):
        preflight = origin | {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        assert http_call(server.http_url, "/v1/models", method="OPTIONS", headers=preflight).status == 200
        refused = http_call(server.http_url, "/v1/models", headers=origin)
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://chat.example")


async def open_socket(server: testing.LocalServer, **options: Any) -> str | None:
    """Opens and closes a WebSocket; the subprotocol that was taken."""
    async with connect(f"ws://{server.server.http.address}/v1/ws", proxy=None, **options) as socket:
        return socket.subprotocol


def test_a_socket_brings_its_token_in_the_header_or_a_subprotocol(tmp_path: Path) -> None:
    """Browsers can only do the second; the token is not said back."""
    with guarded(tmp_path) as (tokens, server):
        header = asyncio.run(open_socket(server, additional_headers=bearer(tokens.generate)))
        offered: Any = ["mlx_grpc.v1", f"bearer.{tokens.generate}"]
        assert (header, asyncio.run(open_socket(server, subprotocols=offered))) == (None, "mlx_grpc.v1")


@pytest.mark.parametrize(
    "offered", [[], ["mlx_grpc.v1"], ["mlx_grpc.v1", "bearer.unheard"], ["{}"], ["bearer.{}", "bearer.{}x"]]
)
def test_a_socket_without_a_good_token_is_not_opened(tmp_path: Path, offered: list[str]) -> None:
    """It is refused as HTTP, with 401."""
    with guarded(tmp_path) as (tokens, server):
        names: Any = [name.replace("{}", tokens.generate) for name in offered] or None
        with pytest.raises(InvalidStatus) as raised:
            asyncio.run(open_socket(server, subprotocols=names))
        assert raised.value.response.status_code == 401
        assert raised.value.response.headers["www-authenticate"] == 'Bearer realm="mlx_grpc"'


def test_without_tokens_a_page_may_offer_the_subprotocol() -> None:
    """One page serves both kinds of server."""
    with testing.run(SCRIPT) as server:
        offered: Any = ["mlx_grpc.v1", "bearer.x"]
        assert asyncio.run(open_socket(server, subprotocols=offered)) == "mlx_grpc.v1"
