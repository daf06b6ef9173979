"""The OpenAI-compatible port: which path leads where. It calls the service that gRPC calls, in the same event loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from mlx_grpc.auth.access import OPEN, Access
from mlx_grpc.auth.tokens import TokenScope
from mlx_grpc.errors import MlxGrpcError, ModelNotFound
from mlx_grpc.http.openai.access import LocalNames
from mlx_grpc.http.openai.answers import ChatAnswer, CompletionAnswer
from mlx_grpc.http.openai.calls import Completions
from mlx_grpc.http.openai.description import describe
from mlx_grpc.http.openai.errors import ApiError, api_error, internal_error
from mlx_grpc.http.openai.requests import read_chat, read_completion
from mlx_grpc.http.token_check import TokenCheck
from mlx_grpc.http.websocket.conversation import Sockets
from mlx_grpc.service.hosting.host import ModelHost
from mlx_grpc.service.hosting.model_state import ModelState
from mlx_grpc.service.service import Service

SHOWN_STATES = frozenset({ModelState.READY, ModelState.LOADING})
PREFLIGHT_SECONDS = 600
_CODES = {404: "not_found", 405: "method_not_allowed", 408: "slow_body", 413: "content_too_large"}


class Settings(Protocol):
    """What the port needs of the server's settings; `config.Config` has it all."""

    @property
    def host(self) -> str:
        """What it listens on."""

    @property
    def slow_reader_seconds(self) -> float:
        """A stream whose reader takes nothing for so long is ended."""

    @property
    def cors_origin(self) -> Sequence[str]:
        """Origins whose pages may call; "*" is every one."""


def openai_app(service: Service, config: Settings, access: Access = OPEN) -> Starlette:
    """The ASGI app. What serves it bounds the bodies."""
    models = _Models(service)
    chat = Completions(service, read_chat, ChatAnswer, config.slow_reader_seconds)
    plain = Completions(service, read_completion, CompletionAnswer, config.slow_reader_seconds)
    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", plain, methods=["POST"]),
        Route("/v1/models", models.list, methods=["GET"]),
        Route("/v1/models/{model:path}", models.get, methods=["GET"]),
        WebSocketRoute("/v1/ws", Sockets(service, config.cors_origin, config.slow_reader_seconds)),
        Route("/openapi.json", _description, methods=["GET"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(LocalNames, config.host, config.cors_origin),
            *_cross_origin(config.cors_origin),
            Middleware(TokenCheck, access, TokenScope.GENERATE, _refusal, open_paths=["/openapi.json"]),
        ],
        exception_handlers={
            ApiError: _answer_error,
            MlxGrpcError: _answer_error,
            HTTPException: _answer_error,
            Exception: _answer_error,
        },
    )


class _Models:
    """GET /v1/models and one of them: those that take requests now or soon."""

    def __init__(self, service: Service) -> None:
        self._catalog = service.catalog
        self._since = int(time.time())

    async def list(self, request: Request) -> Response:
        """All, the default first."""
        shown = [host for host in self._catalog.hosts if host.life.state in SHOWN_STATES]
        shown.sort(key=lambda host: host.source.id != self._catalog.default_id)
        return JSONResponse({"object": "list", "data": [self._model(host) for host in shown]})

    async def get(self, request: Request) -> Response:
        """One. Raises ModelNotFound."""
        name = request.path_params["model"]
        host = self._catalog.get(name) if name else None
        if host is None or host.life.state not in SHOWN_STATES:
            raise ModelNotFound(f"there is no model {name!r} here", resource=name, field="model")
        return JSONResponse(self._model(host))

    def _model(self, host: ModelHost) -> dict[str, object]:
        facts: dict[str, object] = {"id": host.source.id, "object": "model", "created": self._since}
        return facts | {"owned_by": "mlx-grpc", "context_length": host.context_length or None}


def _cross_origin(origins: Sequence[str]) -> list[Middleware]:
    """Leave for the pages of these origins to call; none without the flag."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "x-generation-id", "x-seed", "retry-after", "retry-after-ms"],
            max_age=PREFLIGHT_SECONDS,
        )
    ]


async def _description(request: Request) -> Response:
    return JSONResponse(describe())


def _refusal(error: MlxGrpcError) -> Response:
    found = api_error(error)
    return Response(found.body(), found.status, found.headers, media_type="application/json")


async def _answer_error(request: Request, error: Exception) -> Response:
    found = _as_api_error(request, error)
    return Response(found.body(), found.status, found.headers, media_type="application/json")


def _as_api_error(request: Request, error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case MlxGrpcError():
            return api_error(error, error.field)
        case HTTPException():
            code = _CODES.get(error.status_code, "invalid_request")
            return ApiError(error.status_code, error.detail, code=code, headers=error.headers)
    return internal_error(request.url.path[:64], error)
