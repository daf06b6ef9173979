"""Headers that are small on the wire and large in the server."""

from __future__ import annotations

import pytest

from mlx_grpc.rpc import listener
from tests.helpers.rpc import Request, in_loop, serving
from tests.hostile.helpers.grpc import CHECK, RawConnection, framed

RESOURCE_EXHAUSTED = "8"


@pytest.mark.parametrize("sent", ["huffman", "table"])
@in_loop
async def test_headers_count_as_they_arrive(sent: str) -> None:
    """200,000 bytes: one that Huffman's code makes smaller, and one that the table says again and again."""
    value = "0" * 25_000 if sent == "huffman" else "0" * 3_000
    headers = [("x-large", value)] * (1 if sent == "huffman" else 70)
    async with serving() as (server, api):
        connection = RawConnection(server.target)
        try:
            stream = connection.call(CHECK, framed(b""), *headers, end=True)
            await connection.run_async(20, until_ended=True)
            assert connection.ended[stream] == RESOURCE_EXHAUSTED
        finally:
            connection.close()
        await api.answer(Request(prompt="ping", stop={"max_tokens": 1}))


@in_loop
async def test_headers_up_to_the_limit_are_taken() -> None:
    """As HTTP/2 counts them: names, values and 32 bytes for each."""
    async with serving() as (_, api):
        metadata = (("x-large", "x" * (listener.MAX_HEADER_BYTES - 1000)),)
        await api.answer(Request(prompt="ping", stop={"max_tokens": 1}), metadata=metadata)
