"""Streams: iterators over a call that own it. Leaving one, by whatever way, cancels the call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
import grpc.aio

from mlx_grpc.client.errors import from_rpc_error
from mlx_grpc.client.pump import Pump
from mlx_grpc.client.results.data import Generation, HealthStatus
from mlx_grpc.client.results.events import Gatherer
from mlx_grpc.request import Delta, Event

Item = TypeVar("Item")
Decode = Callable[[Any], Item | None]


class _Owned(Generic[Item]):
    """A running call and how to read its messages; `decode` gives None for one to pass over."""

    def __init__(self, call: Any, decode: Decode[Item]) -> None:
        self._closed = False
        self._call = call
        self._decode = decode

    def close(self) -> None:
        """Cancels the call if it still runs; the iterator is at its end then. May be called twice.

        From any thread for a `Client`'s stream, from the event loop for an `AsyncClient`'s.
        """
        self._closed = True
        self._call.cancel()

    def _was_left(self) -> bool:
        return self._closed

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()


class _SyncCall(_Owned[Item]):
    """The iterator of a `Client`."""

    def __init__(self, call: Any, decode: Decode[Item]) -> None:
        super().__init__(Pump(call), decode)

    def __next__(self) -> Item:
        """The next item; raises a class of `mlx_grpc.errors` when the call fails."""
        while not self._closed:
            try:
                item = self._decode(next(self._call))
            except StopIteration:
                break
            except grpc.RpcError as error:
                if self._was_left():  # by close() in another thread
                    break
                self._closed = True
                raise from_rpc_error(error) from error
            except BaseException:  # Ctrl-C among them
                self.close()
                raise
            if item is not None:
                return item
        self._closed = True
        raise StopIteration

    def __iter__(self) -> Iterator[Item]:
        """Every item; a loop that is left cancels the call."""
        try:
            while True:
                try:
                    item = next(self)
                except StopIteration:
                    return
                yield item
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _AsyncCall(_Owned[Item]):
    """The asynchronous iterator of an `AsyncClient`."""

    async def __anext__(self) -> Item:
        """The next item; raises a class of `mlx_grpc.errors` when the call fails."""
        while not self._closed:
            try:
                message = await self._call.read()
                item = None if message is grpc.aio.EOF else self._decode(message)
            except grpc.aio.AioRpcError as error:
                self._closed = True
                raise from_rpc_error(error) from error
            except asyncio.CancelledError:
                if self._was_left() and not _being_cancelled():  # by close() in another task
                    break
                self.close()
                raise
            except BaseException:
                self.close()
                raise
            if message is grpc.aio.EOF:
                break
            if item is not None:
                return item
        self._closed = True
        raise StopAsyncIteration

    async def __aiter__(self) -> AsyncIterator[Item]:
        """Every item; a loop that is left cancels the call."""
        try:
            while True:
                try:
                    item = await self.__anext__()
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Gathers(_Owned[Event]):
    """A stream of events that keeps what it has read."""

    def __init__(self, call: Any, decode: Decode[Event]) -> None:
        super().__init__(call, decode)
        self._gatherer = Gatherer()

    @property
    def text_so_far(self) -> str:
        """The text of the events that were read; what stays of an answer that was left or that failed."""
        return self._gatherer.text


class Stream(_SyncCall[Event], _Gathers):
    """Events of a generation: Queued, Started, Prefill, Delta, Finished, Completed of `mlx_grpc.request`."""

    def __next__(self) -> Event:
        """The next event; raises a class of `mlx_grpc.errors` when the call fails."""
        event = super().__next__()
        self._gatherer.add(event)
        return event

    def text(self) -> Iterator[str]:
        """The pieces of text alone."""
        for event in self:
            if isinstance(event, Delta) and event.text:
                yield event.text

    def result(self) -> Generation:
        """Reads to the end and returns all of it, the events that were read before included."""
        for _ in self:
            pass
        return self._gatherer.generation()


class AsyncStream(_AsyncCall[Event], _Gathers):
    """As `Stream`, for asyncio."""

    async def __anext__(self) -> Event:
        """The next event; raises a class of `mlx_grpc.errors` when the call fails."""
        event = await super().__anext__()
        self._gatherer.add(event)
        return event

    async def text(self) -> AsyncIterator[str]:
        """The pieces of text alone."""
        async for event in self:
            if isinstance(event, Delta) and event.text:
                yield event.text

    async def result(self) -> Generation:
        """Reads to the end and returns all of it, the events that were read before included."""
        async for _ in self:
            pass
        return self._gatherer.generation()


class Watch(_SyncCall[HealthStatus]):
    """A service's health, now and whenever it changes; it ends after NOT_SERVING."""


class AsyncWatch(_AsyncCall[HealthStatus]):
    """As `Watch`, for asyncio."""
