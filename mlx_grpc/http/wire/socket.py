"""uvicorn's WebSocket connection, with bounds on what has not become a message, and small reads in turns."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode, Frame
from websockets.protocol import State

from mlx_grpc.bounds.intake import Holding
from mlx_grpc.errors import IntakeFull
from mlx_grpc.http.arrival import due_seconds
from mlx_grpc.http.wire.paced import Paced
from mlx_grpc.http.wire.places import Phase
from mlx_grpc.http.wire.shared import Shared, Stuck

MAX_FRAGMENTS = 4096
"""Of one message. Empty ones count for no limit on bytes, and each is an object."""
FRAMES_READ_BYTES = 4 * 1024
"""What one read of a WebSocket takes at most: hundreds of frames, which are parsed at once, for some 30 us each."""
HOLDING = "holding"
"""In a received message: what holds its bytes. Whoever has parsed the message closes it."""
SOCKET = "socket"
"""In the scope's state: the connection."""


class SocketConnection(WebSocketsSansIOProtocol, Paced):
    """One WebSocket, from its handshake on."""

    read_bytes = FRAMES_READ_BYTES

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        shared: Shared,
    ) -> None:
        super().__init__(config, server_state, {**app_state, SOCKET: self}, _loop)
        self.turns = shared.turns
        self._shared = shared
        self._stuck = Stuck()
        self._arriving: Holding | None = None
        self._arrived: deque[Holding | None] = deque()
        self._began_seconds = math.inf
        """When the message on its way began."""
        self._pong_waits = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._shared.places.move(self, Phase.OPEN)

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.places.leave(self)
        self.app_state.clear()  # it refers to this connection
        for holding in (*self._arrived, self._arriving):
            self._close(holding)
        self.conn.reader.discard()  # its parser refers to itself, and would keep megabytes until they are collected
        self.frames = []
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        try:
            self._holding().grow(len(data))
        except IntakeFull:
            self._fail(CloseCode.TRY_AGAIN_LATER, "too much waits to be answered")
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.conn.reader.buffer or self.conn.current_size is not None:
            self._began_seconds = min(self._began_seconds, self.loop.time())
        else:
            self._began_seconds = math.inf
            self._close(self._take_holding())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._pong_waits:
            self._pong_waits = False
            self._read_on()

    @property
    def wire(self) -> asyncio.Transport:
        return self.transport

    @property
    def wants_silence(self) -> bool:
        return self.read_paused or self._pong_waits

    # What uvicorn calls.

    def handle_text(self, event: Frame) -> None:
        super().handle_text(event)
        event.data = b""  # the parser keeps its last frame until there is another

    def handle_bytes(self, event: Frame) -> None:
        super().handle_bytes(event)
        event.data = b""

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MAX_FRAGMENTS:
            self._fail(CloseCode.POLICY_VIOLATION, f"a message has more than {MAX_FRAGMENTS} fragments")
        else:
            super().handle_cont(event)
        event.data = b""

    def handle_ping(self) -> None:
        super().handle_ping()
        if not self.writable.is_set():  # the client takes no pongs
            self._pong_waits = True
            self.transport.pause_reading()

    def send_receive_event_to_app(self) -> None:
        data, self.frames = b"".join(self.frames), []
        holding, self._began_seconds = self._take_holding(), math.inf
        try:
            message: Any = {"type": "websocket.receive"}
            is_text = self.curr_msg_data_type == "text"
            message |= {"text": data.decode()} if is_text else {"bytes": data}
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "a text is not UTF-8")
        if self.close_sent:
            self._close(holding)
            return
        self._arrived.append(holding)
        self.queue.put_nowait(message)
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    async def send(self, message: Any) -> None:
        if self.close_sent and message["type"] == "websocket.send":
            raise ClientDisconnected  # closed by `_fail` or for a wrong frame: no bug of who answers
        await super().send(message)

    async def receive(self) -> Any:
        message: Any = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._read_on()
        if message["type"] == "websocket.receive":
            message[HOLDING] = self._arrived.popleft()
        return message

    def _read_on(self) -> None:
        if not self.wants_silence and not self.transport.is_closing():
            self.transport.resume_reading()

    # The bounds.

    def hold(self) -> Holding:
        """A holding of this connection, for what was made of its messages."""
        return self._shared.intake.open(self.client, self._cut_off)

    def _holding(self) -> Holding:
        """That of the message on its way. It counts apart from what the connection holds already, so that a question
        that has no room is refused by a message, and not by closing the socket with those that had."""
        if self._arriving is None:
            self._arriving = self._shared.intake.open((self.client, "arriving"), self._cut_off)
        return self._arriving

    def _take_holding(self) -> Holding | None:
        """None for a message that came with the read of another: what is read at once is little."""
        holding, self._arriving = self._arriving, None
        return holding

    @staticmethod
    def _close(holding: Holding | None) -> None:
        if holding is not None:
            holding.close()

    def _cut_off(self) -> None:
        self._fail(CloseCode.TRY_AGAIN_LATER, "the bytes of this message are wanted for others")

    def _fail(self, code: CloseCode, reason: str) -> None:
        """Close, with a reason if the client can still be told."""
        if self.transport.is_closing():
            return
        if self.conn.state is not State.OPEN:
            self.transport.close()
            return
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def working(self, is_working: bool) -> None:
        """Whether a question is being answered or waits; otherwise the socket may be closed for others."""
        if not self.disconnected:
            self._shared.places.move(self, Phase.WORKING if is_working else Phase.OPEN)

    def end(self) -> None:
        """For the sake of others."""
        self._fail(CloseCode.TRY_AGAIN_LATER, "too many connections")
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def check(self, now_seconds: float) -> None:
        """Called about once a second."""
        stuck_seconds = self._stuck.for_seconds(self.transport, not self.writable.is_set(), now_seconds)
        if stuck_seconds > self._shared.write_seconds:
            self.transport.abort()
        elif self.transport.is_closing() or self.read_paused:
            return
        elif now_seconds > due_seconds(self._began_seconds, self._arriving.bytes if self._arriving else 0):
            self._fail(CloseCode.POLICY_VIOLATION, "the message did not come in time")


def connection_of(scope: Mapping[str, Any]) -> SocketConnection | None:
    """The connection under an ASGI WebSocket; None where something else than this server calls the app."""
    found = scope.get("state", {}).get(SOCKET)
    return found if isinstance(found, SocketConnection) else None
