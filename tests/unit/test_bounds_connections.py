"""A listener that takes so many connections and no more."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from mlx_grpc.bounds.connections import BoundedListener, Seats
from mlx_grpc.listening import bind

FAREWELL = b"too many"


@pytest.fixture
def seats() -> Seats:
    return Seats(2)


@pytest.fixture
def listener(seats: Seats) -> Iterator[BoundedListener]:
    (bound,) = bind("127.0.0.1", 0, "--port")
    with BoundedListener(bound, seats, FAREWELL) as listener:
        listener.listen()
        yield listener


def knock(listener: BoundedListener) -> socket.socket:
    return socket.create_connection(listener.getsockname(), timeout=10)


def test_the_bound_holds_and_seats_are_free_again(listener: BoundedListener, seats: Seats) -> None:
    """One more is told so and closed; when one leaves, the next is taken."""
    with knock(listener), knock(listener), knock(listener) as third:
        first, _ = listener.accept()
        second, _ = listener.accept()
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert third.makefile("rb").read() == FAREWELL
        assert (seats.taken, seats.turned_away) == (2, 1)
        first.close()
        first.close()  # counts once
        assert seats.taken == 1
        with knock(listener), listener.accept()[0]:
            assert seats.taken == 2
        second.close()
    assert seats.taken == 0


def test_a_connection_that_is_forgotten_leaves_its_seat(listener: BoundedListener, seats: Seats) -> None:
    """Whoever drops it without closing it."""
    with knock(listener):
        accepted: list[socket.socket] = [listener.accept()[0]]
        assert seats.taken == 1
        with pytest.warns(ResourceWarning):
            accepted.clear()
    assert seats.taken == 0


def test_asyncio_serves_on_it_and_gives_the_seats_back(listener: BoundedListener, seats: Seats) -> None:
    """Those over the bound are closed while the others are served."""

    async def main() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        async with await asyncio.start_server(echo, sock=listener):
            host, port = listener.getsockname()
            pairs = [await asyncio.open_connection(host, port) for _ in range(3)]
            assert await pairs[2][0].read() == FAREWELL
            for reader, writer in pairs[:2]:
                writer.write(b"hello\n")
                assert await reader.read() == b"hello\n"
            for _, writer in pairs:
                writer.close()
                await writer.wait_closed()
            while seats.taken:  # noqa: ASYNC110 - the transport closes its socket a step later
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_without_descriptors_asyncio_is_told_once(listener: BoundedListener, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would log a traceback for each of a thousand tries. It pauses after the first, and then goes on."""
    told = asyncio.Event()
    contexts: list[dict[str, Any]] = []
    tries = 0

    def exhausted(_: socket.socket) -> tuple[socket.socket, Any]:
        nonlocal tries
        tries += 1
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> bytes:
        def tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            contexts.append(context)
            told.set()

        asyncio.get_running_loop().set_exception_handler(tell)

        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"welcome")
            writer.close()

        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "accept", exhausted)
            async with await asyncio.start_server(greet, sock=listener, backlog=1000):
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                await told.wait()
                patched.undo()
                answer = await reader.read()
                writer.close()
                return answer

    assert asyncio.run(asyncio.wait_for(main(), 30)) == b"welcome"
    assert (tries, [context["exception"].errno for context in contexts]) == (1, [errno.EMFILE])
