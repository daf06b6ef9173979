"""From the bytes of a message to the message: counted before it is built, and large ones built in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from google.protobuf.message import Message

from mlx_grpc.errors import InvalidField
from mlx_grpc.rpc.unknown_fields import refuse_unknown_fields
from mlx_grpc.rpc.wire_scan import MAX_FIELDS, TooManyFields, count_fields, plan_of

UNCOUNTED_BYTES = 1024
"""So few bytes cannot hold fields enough to matter."""
INLINE_BYTES = 256 * 1024
INLINE_FIELDS = 512
"""Up to both, building a message takes about a millisecond at most: less than the others would lose to a thread."""


class Parser:
    """Builds the requests of one method."""

    def __init__(self, parse: Callable[[bytes], Message], max_bytes: int | None, one_at_a_time: asyncio.Lock) -> None:
        """`max_bytes` for methods whose requests are small, None where grpc's own limit is all; `one_at_a_time` is held
        while a large message is built."""
        self._parse = parse
        self._max_bytes = max_bytes
        self.is_small = max_bytes is not None
        self._one_at_a_time = one_at_a_time
        descriptor = parse(b"").DESCRIPTOR
        self._is_ours = descriptor.full_name.startswith("mlx_grpc.")
        self._plan = plan_of(descriptor)

    async def __call__(self, data: bytes) -> Message:
        """The message. Raises InvalidField for bytes that are not one or hold too much; UnsupportedField for fields of
        ours that we do not know."""
        if self._max_bytes is not None and len(data) > self._max_bytes:
            raise InvalidField(
                f"the request has {len(data)} bytes, which may be at most {self._max_bytes} for this method",
                field="request",
            )
        if len(data) <= UNCOUNTED_BYTES or self._is_cheap(data):
            return self._build(data)
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._count_and_build, data)

    def _is_cheap(self, data: bytes) -> bool:
        if len(data) > INLINE_BYTES:
            return False
        try:
            count_fields(data, self._plan, INLINE_FIELDS)
        except TooManyFields:
            return False
        return True

    def _count_and_build(self, data: bytes) -> Message:
        count_fields(data, self._plan, MAX_FIELDS)
        return self._build(data)

    def _build(self, data: bytes) -> Message:
        try:
            message = self._parse(data)
        except Exception:  # protobuf's DecodeError, and UnicodeDecodeError in some of its builds
            raise InvalidField(
                "the bytes are not a message of this type, or hold text that is not UTF-8", field="request"
            ) from None
        if self._is_ours:
            refuse_unknown_fields(message)
        return message
