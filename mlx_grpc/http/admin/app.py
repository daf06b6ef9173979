"""The admin port: status, models, cancel, drain, probes, metrics, and the live page.

Answers are JSON, errors too: {"error": {code, reason, message, field}}. See docs/admin.md for each path.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mlx_grpc.auth.access import Access
from mlx_grpc.auth.tokens import TokenScope
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.http.admin.events import EventStream
from mlx_grpc.http.admin.guard import Guard
from mlx_grpc.http.admin.page import page_routes
from mlx_grpc.http.bodies import read_body
from mlx_grpc.http.errors import error_response, on_bug, on_error, on_http_error, plain_error
from mlx_grpc.http.token_check import TokenCheck
from mlx_grpc.observe.metrics import CONTENT_TYPE, Metrics
from mlx_grpc.service.hosting.host import ModelHost
from mlx_grpc.service.monitor import Monitor
from mlx_grpc.service.service import Service

log = logging.getLogger(__name__)

OPEN_PATHS = ("/healthz", "/readyz")
"""What probes ask, who have no token."""


class ModelBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which model; `force` ends its calls instead of waiting for them."""

    model: str
    force: bool = False


class NoBody(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing, or {}."""


def make_admin_app(
    service: Service, monitor: Monitor, ask_to_stop: Callable[[], None], host: str, access: Access
) -> Starlette:
    """The app, for a listener on `host`. `ask_to_stop` begins a drain and returns."""
    admin = _Admin(service, monitor, ask_to_stop)
    app = Starlette(
        routes=[
            *page_routes(),
            Route("/admin/events", EventStream(monitor), name="events"),
            Route("/admin/status", admin.status),
            Route("/admin/models/load", admin.load, methods=["POST"]),
            Route("/admin/models/unload", admin.unload, methods=["POST"]),
            Route("/admin/requests/{generation_id}/cancel", admin.cancel, methods=["POST"]),
            Route("/admin/drain", admin.drain, methods=["POST"]),
            Route("/healthz", admin.healthz),
            Route("/readyz", admin.readyz),
            Route("/metrics", admin.metrics),
        ],
        middleware=[
            Middleware(Guard, host),
            Middleware(TokenCheck, access, TokenScope.ADMIN, error_response, open_paths=OPEN_PATHS, asks_browsers=True),
        ],
        exception_handlers={MlxGrpcError: on_error, HTTPException: on_http_error, Exception: on_bug},
    )
    app.router.redirect_slashes = False
    return app


class _Admin:
    def __init__(self, service: Service, monitor: Monitor, ask_to_stop: Callable[[], None]) -> None:
        self._service = service
        self._monitor = monitor
        self._ask_to_stop = ask_to_stop
        self._metrics = Metrics(monitor.fresh, service.stats)

    async def status(self, request: Request) -> Response:
        """The server now."""
        return _json(self._monitor.fresh().as_json())

    async def load(self, request: Request) -> Response:
        """Starts to load; the state tells when it is done."""
        body = await read_body(request, ModelBody)
        log.info("an operator loads model %.100s", body.model)
        return _model(self._service.catalog.load(body.model))

    async def unload(self, request: Request) -> Response:
        """Starts to unload, after the model's calls or with `force` at once."""
        body = await read_body(request, ModelBody)
        log.info("an operator unloads model %.100s", body.model)
        return _model(self._service.catalog.unload(body.model, body.force))

    async def cancel(self, request: Request) -> Response:
        """Ends an accepted call."""
        await read_body(request, NoBody)
        generation_id = request.path_params["generation_id"]
        if not self._service.cancel(generation_id):
            return plain_error(
                404, "NOT_FOUND", "REQUEST_NOT_FOUND", "no running request has this generation id", field="id"
            )
        log.info("an operator cancelled %s", generation_id)
        return _json({"generation_id": generation_id, "cancelled": True})

    async def drain(self, request: Request) -> Response:
        """As SIGTERM does: no new calls, the accepted ones finish, the server ends."""
        await read_body(request, NoBody)
        log.info("an operator drains the server")
        self._ask_to_stop()
        snapshot = self._monitor.fresh()
        return _json({"state": snapshot.state.value, "running": snapshot.running_count}, 202)

    async def healthz(self, request: Request) -> Response:
        """Whether the process lives: 200 from start until drain, so that no probe kills it amid a resume."""
        if self._service.draining:
            return _json({"status": "NOT_SERVING"}, 503)
        return _json({"status": "SERVING"})

    async def readyz(self, request: Request) -> Response:
        """Whether a call for the default model would be taken now: 200, or 503 with the reason."""
        refusal = self._service.refusal()
        return error_response(refusal, status=503) if refusal else _json({"status": "SERVING"})

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return Response(self._metrics.render(), media_type=CONTENT_TYPE)


def _json(body: object, status: int = 200) -> JSONResponse:
    return JSONResponse(body, status, headers={"Cache-Control": "no-store"})


def _model(host: ModelHost) -> Response:
    return _json({"model": {"id": host.source.id, "state": host.life.state.value, "error": host.life.error}}, 202)
