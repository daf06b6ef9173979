"""One allocator for all engines of the device: who may fill how much with KV cache.

Each engine's weights are taken off the whole; what is left is for the caches of all of them together. An engine gets
what the others have not reserved just now, and is asked again whenever one of them lets go, so the guard never latches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

KV_SHARE = 0.9
"""Of what the weights leave; the rest is for activations and everybody else."""


class NoRoom(Exception):
    """A model's weights would leave too little for caches; one line says how much."""


@dataclass(slots=True)
class _Engine:
    weights_bytes: int
    least_bytes: int
    on_change: Callable[[], None]
    reserved_bytes: int = 0


class DeviceMemory:
    """Bytes of one device. `limit_bytes` 0: what the engines find there."""

    def __init__(self, limit_bytes: int = 0) -> None:
        self._wanted_bytes = limit_bytes
        self._limit_bytes = limit_bytes
        self._engines: dict[str, _Engine] = {}

    @property
    def total_bytes(self) -> int:
        """What all engines may use together; 0 until one has told."""
        return self._limit_bytes

    @property
    def weights_bytes(self) -> int:
        """What all weights take."""
        return sum(engine.weights_bytes for engine in self._engines.values())

    def loaded(
        self, model: str, memory_bytes: int, weights_bytes: int, least_bytes: int, on_change: Callable[[], None]
    ) -> None:
        """An engine has loaded its model. `memory_bytes` is what it found on the device, `least_bytes` the cache
        without which it is of no use; `on_change` is called when what it may have has changed.

        Raises NoRoom where it, or one of those that are there already, would not get so much; then nothing has changed.
        """
        found_bytes = min(memory_bytes, self._wanted_bytes or memory_bytes)
        # Beside other engines it may have found less than there is, for they hold some of it.
        total_bytes = max(self._limit_bytes, found_bytes) if self._engines else found_bytes
        kv_bytes = int((total_bytes - self.weights_bytes - weights_bytes) * KV_SHARE)
        needed_bytes = max([least_bytes, *(engine.least_bytes for engine in self._engines.values())])
        if needed_bytes > 0 and kv_bytes < needed_bytes:
            raise NoRoom(
                f"of {total_bytes} bytes of memory, weights leave {max(0, kv_bytes)} for caches, and one short request "
                f"needs {needed_bytes}: raise --memory-limit-bytes, or serve fewer or smaller models"
            )
        self._limit_bytes = total_bytes
        self._engines[model] = _Engine(weights_bytes, least_bytes, on_change)
        self._tell_others(model)

    def unloaded(self, model: str) -> None:
        """An engine has ended, and its memory is free."""
        if self._engines.pop(model, None) is not None:
            self._tell_others(model)

    def limit_for_next(self) -> int:
        """What an engine that starts now must stay within, its weights included; 0 leaves it to the device."""
        return max(1, self._wanted_bytes - self.weights_bytes) if self._wanted_bytes else 0

    def kv_bytes(self) -> int:
        """What one engine's caches may take while all others are idle; at least 1, since 0 would mean no limit."""
        return max(1, int((self._limit_bytes - self.weights_bytes) * KV_SHARE))

    def others_bytes(self, model: str) -> int:
        """What the caches of the other engines have reserved."""
        return sum(engine.reserved_bytes for name, engine in self._engines.items() if name != model)

    def reserve(self, model: str, kv_bytes: int) -> None:
        """The engine's caches may now take so much."""
        engine = self._engines.get(model)
        if engine is None or engine.reserved_bytes == kv_bytes:
            return
        shrank, engine.reserved_bytes = kv_bytes < engine.reserved_bytes, kv_bytes
        if shrank:
            self._tell_others(model)

    def _tell_others(self, model: str) -> None:
        for name, engine in self._engines.items():
            if name != model:
                engine.on_change()
