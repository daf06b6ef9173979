"""h11's parser with bounds on what is many and small: lines of headers, and chunks of a body."""

from __future__ import annotations

import re
from typing import Any

import h11

MAX_HEADERS = 128
"""Of one request; each costs some microseconds. Browsers and proxies send some dozens."""
FREE_CHUNKS = 512
LEAST_CHUNK_BYTES = 64
"""A chunked body's chunks have at least this many bytes on average, once there are more than FREE_CHUNKS: each costs
as much time as kilobytes do."""
_BLANK_LINE = re.compile(rb"\n\r?\n")


class BoundedParser(h11.Connection):
    """A server's side of one connection."""

    def __init__(self, max_incomplete_event_size: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size)
        self._chunks = 0
        self._chunk_bytes = 0

    @property
    def has_begun_head(self) -> bool:
        """Whether a request is on its way of which the headers are not whole."""
        return self.their_state is h11.IDLE and bool(self.trailing_data[0])

    def next_event(self) -> Any:
        """As h11 has it. Raises RemoteProtocolError for what is too many, too."""
        if self.their_state is h11.IDLE:
            self._check_head()
        event = super().next_event()
        if type(event) is h11.Request:
            self._chunks = self._chunk_bytes = 0
        elif type(event) is h11.Data:
            self._check_chunk(event)
        return event

    def _check_head(self) -> None:
        data = self.trailing_data[0]
        found = _BLANK_LINE.search(data)
        if data.count(b"\n", 0, found.end() if found else len(data)) > MAX_HEADERS + 2:
            raise h11.RemoteProtocolError("too many headers", error_status_hint=431)

    def _check_chunk(self, data: h11.Data) -> None:
        self._chunks += data.chunk_start
        self._chunk_bytes += len(data.data)
        if self._chunks > FREE_CHUNKS and self._chunk_bytes < self._chunks * LEAST_CHUNK_BYTES:
            raise h11.RemoteProtocolError("too many small chunks", error_status_hint=400)
