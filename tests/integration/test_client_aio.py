"""The asyncio client over a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from mlx_grpc import errors
from mlx_grpc.client import AsyncClient, HealthStatus
from mlx_grpc.request import Delta
from tests.helpers.client import (
    PATIENCE_SECONDS,
    SENT_WORDS,
    Scripted,
    fails,
    never_ends,
    scripted_server,
    sends_nothing,
)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server() as server:
        yield server


def with_client(server: Scripted, body: Callable[[AsyncClient], Awaitable[None]]) -> None:
    """Runs a test's body in an event loop of its own."""

    async def main() -> None:
        async with AsyncClient(server.address) as client:
            await body(client)

    asyncio.run(main())


async def ended(server: Scripted) -> bool:
    """Whether the server saw the end of the call; waits in a thread, so that the loop stays free to end it."""
    return await asyncio.to_thread(server.call_done.wait, PATIENCE_SECONDS)


def test_text_and_result(server: Scripted) -> None:
    """The stream's two simple readings, and the unary call."""

    async def body(client: AsyncClient) -> None:
        assert tuple([text async for text in client.stream("hi").text()]) == SENT_WORDS
        assert (await client.stream("hi").result()).text == "Hello you"
        assert (await client.generate("hi")).text == "Hello you"

    with_client(server, body)


def test_breaking_out_of_a_loop_cancels_the_call(server: Scripted) -> None:
    """Also when the stream still has a name."""
    server.handler = never_ends

    async def body(client: AsyncClient) -> None:
        stream = client.stream("hi")
        async for event in stream:
            if isinstance(event, Delta):
                break
        assert await ended(server)
        assert [event async for event in stream] == []

    with_client(server, body)


def test_leaving_the_with_block_cancels_the_call(server: Scripted) -> None:
    """After one event, read with anext."""
    server.handler = never_ends

    async def body(client: AsyncClient) -> None:
        async with client.stream("hi") as stream:
            await stream.__anext__()
        assert await ended(server)

    with_client(server, body)


def test_losing_a_stream_cancels_the_call(server: Scripted) -> None:
    """Garbage collection is a way to leave."""
    server.handler = never_ends

    async def body(client: AsyncClient) -> None:
        stream = client.stream("hi")
        await stream.__anext__()
        del stream
        assert await ended(server)

    with_client(server, body)


def test_cancelling_the_task_cancels_the_call(server: Scripted) -> None:
    """The task sees its CancelledError, the server the end of the call."""
    server.handler = never_ends

    async def body(client: AsyncClient) -> None:
        task = asyncio.create_task(client.stream("hi").result())
        assert await asyncio.to_thread(server.call_started.wait, PATIENCE_SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ended(server)

    with_client(server, body)


def test_close_ends_a_reader_in_another_task(server: Scripted) -> None:
    """The task that waits for the next event sees the end of the iterator, no error."""
    server.handler = never_ends

    async def body(client: AsyncClient) -> None:
        stream = client.stream("hi")
        reader = asyncio.create_task(stream.__anext__())
        await reader
        reading = asyncio.ensure_future(_rest(stream))
        await asyncio.to_thread(server.call_started.wait, PATIENCE_SECONDS)
        stream.close()
        assert len(await reading) <= 1
        assert await ended(server)

    with_client(server, body)


async def _rest(stream: object) -> list[object]:
    return [event async for event in stream]  # type: ignore[attr-defined]


def test_errors_are_typed_and_retries_honoured(server: Scripted) -> None:
    """Two refusals are retried; a failure after a message is not."""
    server.handler = fails(errors.QueueFull("full", retry_after_seconds=0.1), times=2)

    async def body(client: AsyncClient) -> None:
        assert (await client.generate("hi")).text == "Hello you"
        assert server.calls == 3
        server.handler = fails(errors.SlowReader("too slow"), after=1)
        with pytest.raises(errors.SlowReader):
            await client.stream("hi").result()
        assert server.calls == 4

    with_client(server, body)


def test_a_deadline_is_the_calls_own(server: Scripted) -> None:
    """timeout_seconds of one call."""
    server.handler = sends_nothing

    async def body(client: AsyncClient) -> None:
        with pytest.raises(errors.DeadlineExceeded):
            await client.generate("hi", timeout_seconds=0.2)
        assert await ended(server)

    with_client(server, body)


def test_the_other_services(server: Scripted) -> None:
    """Models over pages, tokens, health, server info."""

    async def body(client: AsyncClient) -> None:
        assert [model.id async for model in client.list_models(page_size=2)] == ["a", "b", "c"]
        assert await client.detokenize((await client.tokenize("hey")).token_ids) == "hey"
        assert await client.health("nobody") is HealthStatus.SERVICE_UNKNOWN
        assert (await client.server_info()).version == "1.2.3"
        async with client.watch() as watch:
            assert await watch.__anext__() is HealthStatus.SERVING

    with_client(server, body)
