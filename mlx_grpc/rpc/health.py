"""grpc.health.v1.Health, true to what the server would do with a call now.

The library's own servicer keeps Watch streams open through a drain, which `Server.stop` then waits for; this one ends
them after NOT_SERVING.
"""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlx_grpc.errors import InvalidField
from mlx_grpc.rpc.context import Context
from mlx_grpc.rpc.watchers import Watchers

MAX_NAME_CHARACTERS = 200
"""Of a service that is not known, and may be watched nevertheless: it may appear."""
PROCESS = ""
"""The service name that stands for the process: SERVING from start until drain, whatever the models do."""

_Response = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Statuses by service name; whoever watches is told of each change."""

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {PROCESS: True}
        self.watchers = Watchers()
        self._draining = False

    def set(self, service: str, serving: bool) -> None:
        """A service's status from now on. Once draining, nothing is SERVING any more."""
        serving = serving and not self._draining
        if self._serving.get(service) != serving:
            self._serving[service] = serving
            self._tell()

    def serving(self, service: str) -> bool:
        """Whether the service is SERVING now."""
        return self._serving.get(service, False)

    def drain(self) -> None:
        """Everything is NOT_SERVING for good, and every Watch ends when it has said so."""
        self._draining = True
        self._serving = dict.fromkeys(self._serving, False)
        self._tell()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> _Response:
        """The status now; NOT_FOUND for a service that is not known."""
        if request.service not in self._serving:
            name = ascii(request.service[:MAX_NAME_CHARACTERS])
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service named {name} here")
        return _Response(status=self._status(request.service))

    async def List(self, request: Any, context: Context) -> Any:
        """The status of every service. (The types know no List as yet.)"""
        return health_pb2.HealthListResponse(  # type: ignore[attr-defined]
            statuses={name: _Response(status=self._status(name)) for name in self._serving}
        )

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """The status now and at each change; a status that changes back before it was read is not told."""
        service = request.service
        del request  # a name is all that is kept while the watch lasts
        if service not in self._serving and len(service) > MAX_NAME_CHARACTERS:
            raise InvalidField(
                f"the name has {len(service)} characters, which may be at most {MAX_NAME_CHARACTERS}", field="service"
            )
        watcher = self.watchers.join(context.peer())
        if watcher is None:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "this connection has too many health watches")
        told = None
        try:
            while True:
                watcher.changed.clear()
                status, last = self._status(service), self._draining  # a drain may begin during the write
                if status != told:
                    await context.write(_Response(status=status))
                    told = status
                if last:
                    return
                await watcher.changed.wait()
                if watcher.put_out:
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "others needed this health watch's place")
        finally:
            self.watchers.leave(watcher)

    def _status(self, service: str) -> int:
        if service not in self._serving:
            return _Response.SERVICE_UNKNOWN
        return _Response.SERVING if self._serving[service] else _Response.NOT_SERVING

    def _tell(self) -> None:
        for watcher in self.watchers:
            watcher.changed.set()
