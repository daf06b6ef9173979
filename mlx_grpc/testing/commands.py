"""The commands of `testing.control` over HTTP, in JSON. The format is in tests/conformance/README.md."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mlx_grpc.testing.control import WAIT_SECONDS, Control, Refused, Spec, features


def control_app(control: Control) -> Starlette:
    """The commands over HTTP."""

    async def start(body: dict[str, Any]) -> dict[str, Any]:
        return await control.start(msgspec.convert(body, Spec))

    async def wait(body: dict[str, Any]) -> dict[str, Any] | None:
        return await control.wait(body["for"], body.get("at_least"), body.get("at_most"))

    async def act(act: Callable[..., None], body: dict[str, Any]) -> dict[str, Any]:
        act(**body)
        return {}

    async def state(_: dict[str, Any]) -> dict[str, Any]:
        return control.state()

    async def tell_features(_: dict[str, Any]) -> dict[str, Any]:
        return {"features": features()}

    return Starlette(
        routes=[
            Route("/server", _json(start), methods=["POST"]),
            Route("/state", _json(state)),
            Route("/features", _json(tell_features)),
            Route("/wait", _json(wait), methods=["POST"]),
            Route("/kill-engine", _json(lambda body: act(control.kill_engine, body)), methods=["POST"]),
            Route("/drain", _json(lambda body: act(control.drain, body)), methods=["POST"]),
            Route("/cancel", _json(lambda body: act(control.cancel, body)), methods=["POST"]),
        ]
    )


def _json(handle: Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None]]) -> Callable[[Request], Awaitable[Any]]:
    """A handler of JSON objects as one of Starlette's."""

    async def handler(request: Request) -> JSONResponse:
        raw = await request.body()
        try:
            answer = await handle(msgspec.json.decode(raw, type=dict[str, Any]) if raw else {})
        except (Refused, msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400)
        if answer is None:
            return JSONResponse({"error": f"not within {WAIT_SECONDS:g} s"}, 504)
        return JSONResponse(answer)

    return handler
