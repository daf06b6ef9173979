"""The accepted calls of one model that have not ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.request import Queued
from mlx_grpc.service.generation.call import Generation


class LiveCalls:
    """Calls by key. A call leaves once. `on_leave` hears the keys of those that leave by themselves: their reader went,
    they failed, or their time is up; those that the engine ended leave by `ended`, in silence."""

    def __init__(self, on_leave: Callable[[int], None]) -> None:
        self._on_leave = on_leave
        self._calls: dict[int, Generation] = {}
        self._untold: dict[int, Queued] = {}
        """Accepted in this turn of the loop: told that they wait only if they still do at its end."""
        self._limited: dict[int, Generation] = {}
        """In the batch, with a max_duration."""

    def __iter__(self) -> Iterator[Generation]:
        return iter(self._calls.values())

    def __len__(self) -> int:
        return len(self._calls)

    def get(self, key: int) -> Generation | None:
        """The call, if it has not ended."""
        return self._calls.get(key)

    @property
    def next_limit_seconds(self) -> float | None:
        """When the first max_duration is over; None where there is none."""
        limits = [limit for call in self._limited.values() if (limit := call.time_limit_seconds) is not None]
        return min(limits, default=None)

    def add(self, generation: Generation, queued: Queued) -> None:
        """A call was accepted and waits."""
        self._calls[generation.key] = generation
        self._untold[generation.key] = queued

    def enter(self, keys: Iterable[int], now_seconds: float) -> list[Generation]:
        """These enter the engine's batch; returns them."""
        entering = [self._calls[key] for key in keys]
        for generation in entering:
            self._untold.pop(generation.key, None)
            generation.admitted(now_seconds)
            if generation.time_limit_seconds is not None:
                self._limited[generation.key] = generation
        return entering

    def tell_queued(self) -> None:
        """Tell those accepted since the last time, and not in the batch yet, that they wait."""
        for key, event in self._untold.items():
            self._calls[key].queued(event)
        self._untold.clear()

    def ended(self, key: int) -> None:
        """The engine is done with it."""
        self._forget(key)

    def leave(self, key: int) -> None:
        """A call has ended that the queue or the engine may still hold."""
        if self._forget(key):
            self._on_leave(key)

    def drop(self, generation: Generation) -> None:
        """The reader has gone, or has all it wanted: nothing more is computed for it."""
        generation.drop()
        self.leave(generation.key)

    def fail(self, generation: Generation, error: MlxGrpcError) -> None:
        """End one call with an error."""
        generation.fail(error)
        self.leave(generation.key)

    def fail_keys(self, keys: Iterable[int], error: Callable[[], MlxGrpcError]) -> None:
        """End these calls, those of them that are still live."""
        for key in keys:
            if key in self._calls:
                self.fail(self._calls[key], error())

    def fail_all(self, error: Callable[[], MlxGrpcError]) -> None:
        """End every call with an error."""
        self.fail_keys(list(self._calls), error)

    def end_overdue(self, now_seconds: float) -> None:
        """End the calls whose max_duration is over."""
        for key, generation in list(self._limited.items()):
            limit = generation.time_limit_seconds
            if not generation.ended and limit is not None and limit <= now_seconds:
                generation.time_is_up(now_seconds)
                self.leave(key)

    def _forget(self, key: int) -> bool:
        """False for one that is not here any more."""
        self._untold.pop(key, None)
        self._limited.pop(key, None)
        return self._calls.pop(key, None) is not None
