"""Runs an ASGI app with uvicorn in the server's own event loop. It takes no signal: the server's owner does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from mlx_grpc.bounds.connections import BoundedListener, Seats
from mlx_grpc.bounds.descriptors import MOST_CONNECTIONS, with_margin
from mlx_grpc.http.limits import BodyLimit
from mlx_grpc.listening import BACKLOG, bind, close_all, host_and_port, port_of

MAX_HEADER_BYTES = 16 * 1024
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_CONNECTIONS = MOST_CONNECTIONS
"""Then uvicorn answers 503 by itself; some more, and they are closed at once. Fewer where few files may be open."""
TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
KEEP_ALIVE_SECONDS = 30
STOP_SECONDS = 1.0
CUT_SECONDS = 0.05
"""At least this long for a stop: uvicorn calls its handlers' tasks late without it."""


class HttpServer:
    """One app on one port. `stop` must follow `start`, and may follow a start that failed."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        flag: str = "--http-port",
        max_body_bytes: int = MAX_BODY_BYTES,
        tls: ssl.SSLContext | None = None,
        connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.address = ""
        """HOST:PORT, once started."""
        self.scheme = "https" if tls else "http"
        self._host, self._port, self._flag = host, port, flag
        connections = min(connections, MAX_CONNECTIONS)
        self._seats = Seats(with_margin(connections))
        self._config = uvicorn.Config(
            BodyLimit(app, max_body_bytes),
            http="h11",
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            ws_max_size=max_body_bytes,
            ws_per_message_deflate=False,  # a few bytes could become many
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=connections,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            backlog=BACKLOG,
        )
        self._config.load()
        if tls:
            self._config.ssl = tls  # what uvicorn would make of file names is not read again when they change
        self._server = _Uvicorn(self._config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen and serve. Raises ListenError, and then nothing is left."""
        farewell = b"" if self._config.ssl else TOO_MANY
        bound = bind(self._host, self._port, self._flag)
        sockets: list[socket.socket] = [BoundedListener(one, self._seats, farewell) for one in bound]
        self.address = host_and_port(self._host, port_of(sockets))
        self._task = asyncio.create_task(self._server.serve(sockets), name=f"http {self.address}")
        listening = asyncio.create_task(self._server.listening.wait())
        try:
            await asyncio.wait((self._task, listening), return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                close_all(sockets)
                self._task.result()
        finally:
            listening.cancel()

    async def stop(self, grace_seconds: float = STOP_SECONDS) -> None:
        """Take no new connection, let answers end within the grace, then cut them off; returns when no handler runs."""
        if self._task is None:
            return
        # uvicorn's type says int; it is a timeout of asyncio's, which takes any number.
        self._config.timeout_graceful_shutdown = max(grace_seconds, CUT_SECONDS)  # type: ignore[assignment]
        self._server.leave()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*self._server.server_state.tasks, return_exceptions=True)
        self._task = None


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers, and told of its end by an event where it would look ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """End `serve`."""
        self.should_exit = True
        self._leaving.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        seconds = 0
        while not await self.on_tick(10 * seconds):  # every tenth tick renews the Date header
            seconds += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), 1.0)


class _NoCancellations(logging.Filter):
    """Handlers that are cut off at the end are no errors; uvicorn prints a traceback for each."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


logging.getLogger("uvicorn.error").addFilter(_NoCancellations())
