"""A WebSocket client that keeps to no rule, over a raw connection."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from tests.hostile.helpers.http import Victim, head

READ_SECONDS = 30.0
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
UPGRADE = head(
    "/v1/ws",
    method="GET",
    connection="Upgrade",
    upgrade="websocket",
    sec_websocket_version="13",
    sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
)


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True, announced: int | None = None) -> bytes:
    """One frame, masked with zeros; `announced` is the length that it claims to have."""
    length = len(payload) if announced is None else announced
    first = (0x80 if fin else 0) | opcode
    if length < 126:
        start = struct.pack("!BB", first, 0x80 | length)
    elif length < 2**16:
        start = struct.pack("!BBH", first, 0x80 | 126, length)
    else:
        start = struct.pack("!BBQ", first, 0x80 | 127, length)
    return start + bytes(4) + payload


def question(size: int) -> bytes:
    """A text_input of about so many bytes."""
    return frame(json.dumps({"type": "text_input", "content": "x" * (size - 40)}).encode())


def opened(server: Victim | tuple[str, int]) -> socket.socket:
    """A socket that was accepted."""
    where = server if isinstance(server, tuple) else server.addresses["http"]
    connection = socket.create_connection(where, timeout=30)
    connection.sendall(UPGRADE)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    return connection


class Frames:
    """What the server says, frame for frame. Somebody else may send meanwhile: the time limit of reads is its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection.dup()
        self._connection.settimeout(READ_SECONDS)
        self._file = self._connection.makefile("rb")

    def next(self) -> tuple[int, bytes]:
        """Opcode and payload; CLOSE and nothing when the connection is gone."""
        try:
            start = self._file.read(2)
            if len(start) < 2:
                return CLOSE, b""
            length = start[1]
            if length == 126:
                (length,) = struct.unpack("!H", self._file.read(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self._file.read(8))
            return start[0] & 15, self._file.read(length)
        except ConnectionError:
            return CLOSE, b""

    def text(self) -> bytes:
        """The next message. Fails when there is none any more."""
        while (found := self.next())[0] != CLOSE:
            if found[0] == TEXT:
                return found[1]
        raise AssertionError(f"closed: {found[1]!r}")

    def message(self, kind: str) -> dict[str, Any]:
        """The next message of this type."""
        while (message := json.loads(self.text()))["type"] != kind:
            pass
        return dict(message)

    def close_code(self) -> int:
        """The code with which the server closes; 0 when it says none."""
        while (found := self.next())[0] != CLOSE:
            pass
        return int.from_bytes(found[1][:2], "big")

    def close(self) -> None:
        self._file.close()
        self._connection.close()
