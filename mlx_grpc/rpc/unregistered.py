"""Answers calls of methods that there are not, in grpc's place.

grpc's own loop decodes the path of such a call as UTF-8, and ends with the exception: one header of one client, without
any token, ended all calls and the listening (grpcio 1.85.1). All methods of ours, and those of health and reflection,
are registered with grpc's core, so a call that is not of one of them can be answered without looking at its path.

This is the one place that touches what grpcio does not promise; it is pinned, and a test fails when this breaks.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server as aio_server

from mlx_grpc.auth.access import Access
from mlx_grpc.auth.tokens import TokenScope
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.rpc.context import authorization_of
from mlx_grpc.rpc.status import to_status

log = logging.getLogger(__name__)

AT_ONCE = 64
"""Calls that are being answered. Each needs one write, which a client that does not read may hold up."""
NOT_FOUND = "Method not found!"  # grpc's own words


class AioServer(aio_server.Server):
    """grpc.aio's server with this in it."""

    def __init__(self, interceptors: list[Any], options: list[tuple[str, Any]], access: Access) -> None:
        self._loop = cygrpc.get_working_loop()
        augmented = aio_server._augment_channel_arguments(options, None)
        self._server = _Core(self._loop, None, (), interceptors, augmented, None)
        self._server.answering = _Answering(access, self._loop)


class _Answering:
    """Ends calls with a status: that there is no such method, or that a token is needed to be told so."""

    def __init__(self, access: Access, loop: asyncio.AbstractEventLoop) -> None:
        self._access = access
        self._loop = loop
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, call: Any) -> None:
        """Answer in a task of its own; waits while too many are being answered."""
        await self._room.acquire()
        task = self._loop.create_task(self._answer(call), name="unregistered method")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: Any) -> None:
        try:
            context = cygrpc._ServicerContext(call, None, None, self._loop)
            try:
                self._access.require(authorization_of(context.invocation_metadata()), TokenScope.GENERATE)
            except MlxGrpcError as error:
                status = to_status(error)
                log.info("a method that there is not ended: %s", error.reason)
                await context.abort(status.code, status.details, tuple(status.trailing_metadata))
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, NOT_FOUND)
        except Exception as error:  # of grpc: aborted as asked, or the client has gone
            log.debug("%r", error)
        finally:
            self._room.release()


class _Core(cygrpc.AioServer):  # type: ignore[misc]
    """grpc asks this for the next call of each method, and for the next of no method: that never comes."""

    answering: _Answering

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        if method is not None:
            future: asyncio.Future[Any] = super()._make_request_call_future(method)
            return future
        return asyncio.ensure_future(self._answer_unregistered())

    async def _answer_unregistered(self) -> None:
        while True:
            await self.answering.begin(await self._request_call())
