"""uvicorn's HTTP/1.1 connection, with times for what it has none for, and small reads in turns."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from mlx_grpc.http.wire.paced import Paced
from mlx_grpc.http.wire.parser import BoundedParser
from mlx_grpc.http.wire.places import Phase
from mlx_grpc.http.wire.shared import Shared, Stuck

TLS_BUFFER_BYTES = 64 * 1024
"""What TLS may hold undecrypted while a connection is not read from; a quarter of what asyncio lets it."""


class HttpConnection(H11Protocol, Paced):
    """One connection, until it closes or becomes a WebSocket."""

    conn: BoundedParser

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        shared: Shared,
    ) -> None:
        super().__init__(config, server_state, shared.turns.among(app_state), _loop)
        self.conn = BoundedParser(config.h11_max_incomplete_event_size or 0)
        self.turns = shared.turns
        self._shared = shared
        self._stuck = Stuck()
        self._due_seconds = math.inf
        """When the client must have done what it is to do now."""
        self._wire: asyncio.Transport
        self._lingers = False
        self._is_socket = False
        self._phase = (Phase.SILENT, True)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wire = transport
        self.transport = _ClosesSoftly(transport, self)  # type: ignore[assignment]
        if self.scheme == "https":
            transport.set_read_buffer_limits(TLS_BUFFER_BYTES)  # type: ignore[attr-defined]
        self._shared.places.enter(self)
        self._due_seconds = self.loop.time() + self._shared.header_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.places.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        super().data_received(data)
        if not self._is_socket:
            self._note()

    @property
    def wire(self) -> asyncio.Transport:
        return self._wire

    @property
    def wants_silence(self) -> bool:
        return bool(self.flow.read_paused)

    # What uvicorn calls.

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._shared.places.leave(self)
        self._is_socket = True
        self.transport = self.wire
        super().handle_websocket_upgrade(event)
        if not getattr(self.wire.get_protocol(), "handshake_initiated", False):
            self.wire.close()  # headers that the WebSocket library does not read: it would wait for ever

    def shutdown(self) -> None:
        if not self._lingers:
            super().shutdown()
        if self._lingers:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        cycle = self.cycle
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True  # what the app says now would be a second answer
            cycle.message_event.set()

    # The times.

    def _note(self) -> None:
        """What the connection waits for may have changed."""
        if self.transport.is_closing():
            return
        now = phase, begun = self._now()
        if now == self._phase:
            return
        self._phase, self._due_seconds = now, math.inf
        if phase is Phase.SILENT:
            seconds = self._shared.header_seconds if begun else self._shared.linger_seconds
            self._due_seconds = self.loop.time() + seconds
        self._shared.places.move(self, phase)

    def _now(self) -> tuple[Phase, bool]:
        """The phase, and whether a request's head has begun to come."""
        if self.conn.their_state is h11.IDLE:
            return (Phase.SILENT, True) if self.conn.has_begun_head else (Phase.IDLE, False)
        if self.conn.their_state is h11.SEND_BODY:
            return (Phase.SILENT if self.cycle.response_complete else Phase.SENDING), False
        return Phase.WORKING, False

    def check(self, now_seconds: float) -> None:
        """Called about once a second."""
        if self._stuck.for_seconds(self.wire, self.flow.write_paused, now_seconds) > self._shared.write_seconds:
            self.wire.abort()
        elif now_seconds >= self._due_seconds:
            self._due_seconds = math.inf
            self.wire.close()

    def end(self) -> None:
        """At once, for the sake of others."""
        self.wire.abort()

    def close_softly(self) -> None:
        """Close; with a body on its way that nobody reads, only once the client has stopped sending it, or after some
        seconds. A socket that is closed with unread bytes is reset, and the client may lose the answer."""
        if self._lingers or self.wire.is_closing() or self.conn.their_state not in (h11.SEND_BODY, h11.ERROR):
            self.wire.close()
            return
        self._lingers = True
        self._due_seconds = self.loop.time() + self._shared.linger_seconds
        self._shared.places.move(self, Phase.SILENT)
        if self.wire.can_write_eof():
            with contextlib.suppress(OSError):  # the client has gone
                self.wire.write_eof()
        self.flow.resume_reading()

    @property
    def lingers(self) -> bool:
        """Whether it is only waiting for the client to stop sending."""
        return self._lingers


class _ClosesSoftly:
    """A connection's transport, as its requests see it."""

    def __init__(self, wire: asyncio.Transport, connection: HttpConnection) -> None:
        self._wire = wire
        self.write = wire.write
        """Called for each token; without the way over `__getattr__`."""
        self._connection = connection

    def close(self) -> None:
        self._connection.close_softly()

    def is_closing(self) -> bool:
        return self._connection.lingers or self._wire.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)
