"""Runs an ASGI app with uvicorn in the server's own event loop. It takes no signal: the server's owner does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Iterator
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from mlx_grpc.bounds.connections import BoundedListener, Seats
from mlx_grpc.bounds.descriptors import MOST_CONNECTIONS, with_margin
from mlx_grpc.bounds.intake import Intake
from mlx_grpc.http.limits import BodyLimit
from mlx_grpc.http.turns import Turns
from mlx_grpc.http.wire.connection import HttpConnection
from mlx_grpc.http.wire.places import Places
from mlx_grpc.http.wire.shared import Shared
from mlx_grpc.http.wire.socket import SocketConnection
from mlx_grpc.listening import BACKLOG, bind, close_all, host_and_port, port_of

MAX_HEADER_BYTES = 16 * 1024
"""Of one request, and as many more as came with the last read."""
MAX_BODY_BYTES = 256 * 1024
"""Where nothing else is said: the bodies of the admin port are some dozens of bytes."""
MAX_CONNECTIONS = MOST_CONNECTIONS
"""On one port; fewer where few files may be open. One more takes the place of one that says nothing; while all work,
uvicorn answers it 503. Some more, and they are closed at once."""
TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
HANDSHAKE_SECONDS = 10.0
"""For TLS; protects connections that have something to say from those that do not."""
HEADER_SECONDS = 10.0
"""From the first moment to the end of a request's headers; protects the same."""
KEEP_ALIVE_SECONDS = 30
"""Between two requests."""
TLS_READ_BYTES = 32 * 1024
"""What asyncio keeps ready for each connection to read into, instead of 256 KiB: 2,048 connections had 512 MiB."""
LINGER_SECONDS = 5.0
"""For a client to stop sending a body that was answered without reading it."""
WRITE_SECONDS = 30.0
"""A client that takes nothing for so long is cut off, whatever it was being answered."""
LOOK_EVERY_SECONDS = 1.0
"""How late the end of a time may be noticed."""
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
        intake: Intake | None = None,
        write_seconds: float = WRITE_SECONDS,
        tls: ssl.SSLContext | None = None,
        connections: int = MAX_CONNECTIONS,
    ) -> None:
        """`intake` is the account of what all listeners have taken in; one of its own when not given."""
        self.address = ""
        """HOST:PORT, once started."""
        self.scheme = "https" if tls else "http"
        self._host, self._port, self._flag = host, port, flag
        connections = min(connections, MAX_CONNECTIONS)
        self._seats = Seats(with_margin(connections))
        intake = intake or Intake.for_messages(max_body_bytes)
        self._places = Places(connections)
        shared = Shared(intake, Turns(), self._places, HEADER_SECONDS, LINGER_SECONDS, write_seconds)
        self._config = uvicorn.Config(
            BodyLimit(app, max_body_bytes, intake),
            http=partial(HttpConnection, shared=shared),  # type: ignore[arg-type]
            ws=partial(SocketConnection, shared=shared),  # type: ignore[arg-type]
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
            SSLProtocol.max_size = TLS_READ_BYTES
            self._config.ssl = tls  # what uvicorn would make of file names is not read again when they change
        self._server = _Uvicorn(self._config, self._places)
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

    def __init__(self, config: uvicorn.Config, places: Places) -> None:
        super().__init__(config)
        self._places = places
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
        """As uvicorn's does, with a time for the TLS handshake."""
        tls = self.config.ssl
        make = partial(
            self.config.http_protocol_class,
            config=self.config,  # type: ignore[call-arg]
            server_state=self.server_state,
            app_state={},
        )
        self.servers = [
            await asyncio.get_running_loop().create_server(
                make,
                sock=one,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
                backlog=self.config.backlog,
            )
            for one in sockets or ()
        ]
        self.started = True
        self.listening.set()

    async def main_loop(self) -> None:
        seconds = 0
        while not await self.on_tick(10 * seconds):  # every tenth tick renews the Date header
            seconds += 1
            self._places.check(asyncio.get_running_loop().time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), LOOK_EVERY_SECONDS)


class _NoCancellations(logging.Filter):
    """Handlers that are cut off at the end are no errors; uvicorn prints a traceback for each."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


logging.getLogger("uvicorn.error").addFilter(_NoCancellations())
