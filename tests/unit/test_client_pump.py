"""The pump reads a call for its reader, in order, a little ahead, and never past its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from mlx_grpc.client.pump import READ_AHEAD_MESSAGES, Pump

PATIENCE_SECONDS = 30.0


class Call:
    """A call's messages; cancelling is noted."""

    def __init__(self, messages: Iterator[int]) -> None:
        self._messages = messages
        self.cancelled = threading.Event()

    def __next__(self) -> int:
        return next(self._messages)

    def cancel(self) -> None:
        self.cancelled.set()

    def add_callback(self, _: Callable[[], None]) -> bool:
        return False  # over already


class SlowlyCancelled(Call):
    """A call that is over some time after it was cancelled, in a thread that says so, as gRPC's does."""

    def __init__(self) -> None:
        super().__init__(iter(()))
        self.callbacks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.is_over = threading.Event()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.put(callback)
        return True

    def end(self) -> None:
        """What gRPC's thread does when the call has been cancelled."""
        callback = self.callbacks.get()
        assert self.cancelled.wait(PATIENCE_SECONDS)
        self.is_over.set()
        callback()


def numbers(read: list[int], enough: threading.Event) -> Iterator[int]:
    """Counts for ever; `enough` once the read-ahead is full."""
    for number in range(1_000_000):
        read.append(number)
        if number == READ_AHEAD_MESSAGES - 1:
            enough.set()
        yield number


def fails_after_one() -> Iterator[int]:
    yield 1
    raise ConnectionError("gone")


def test_messages_come_in_order_and_end() -> None:
    """And the end is told again to who asks again."""
    pump = Pump(Call(iter(range(100))))
    assert [next(pump) for _ in range(100)] == list(range(100))
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(pump)


def test_an_error_comes_after_the_messages_before_it() -> None:
    """As the call raised it."""
    pump = Pump(Call(fails_after_one()))
    assert next(pump) == 1
    with pytest.raises(ConnectionError, match="gone"):
        next(pump)


def test_a_reader_that_stops_stops_the_reading() -> None:
    """What is read ahead is bounded; cancelling lets the thread end after it."""
    read: list[int] = []
    enough = threading.Event()
    call = Call(numbers(read, enough))
    pump = Pump(call)
    assert enough.wait(PATIENCE_SECONDS)
    pump.cancel()
    assert call.cancelled.is_set()
    got = list(iter_until_end(pump))
    # Each message that is taken is a wish for one more, but the cancelling was wished before those.
    assert got == list(range(READ_AHEAD_MESSAGES)) == read


def test_cancelling_waits_until_grpc_has_done_with_the_call() -> None:
    """The interpreter may end right after: gRPC's thread, stopped in the middle, would keep its lock for ever."""
    call = SlowlyCancelled()
    ending = threading.Thread(target=call.end)
    ending.start()
    Pump(call).cancel()
    assert call.is_over.is_set()
    ending.join(PATIENCE_SECONDS)


def iter_until_end(pump: Pump) -> Iterator[int]:
    while True:
        try:
            yield next(pump)
        except StopIteration:
            return
