"""Links and engines that say what no client can see: engines lost, and how fast a row leaves the batch."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from mlx_grpc.engine.link.interface import Link, OnLost, OnMessage
from mlx_grpc.engine.link.process import ProcessLink
from mlx_grpc.engine.link.thread import ThreadLink
from mlx_grpc.engine.messages import Cancel, Load, Loaded, Row, RowFailed, Step, ToWorker
from mlx_grpc.engine.protocol import Engine, OpenEngine
from mlx_grpc.engine.worker.open import open_engine


class Observer:
    """What was seen of one model's engines. Give `start_link` to `testing.serve`."""

    def __init__(self, in_process: bool = False) -> None:
        self.crashes = 0
        """Engines that were lost."""
        self.late_steps = 0
        """The most steps that began between a Cancel and the row's removal. Seen of an engine in a thread alone."""
        self.link: Link | None = None
        self.steps = 0
        self.cancelled_at: dict[int, int] = {}
        self._in_process = in_process

    def start_link(self, on_message: OnMessage, on_lost: OnLost) -> Link:
        """A link of the kind asked for, observed."""

        def lost(why: str) -> None:
            self.crashes += 1
            on_lost(why)

        if self._in_process:
            self.link = ProcessLink(on_message, lost)
        else:
            self.link = _NotingLink(
                self, on_message, lost, functools.partial(_CountingEngine.opened, self, open_engine)
            )
        return self.link

    def removed(self, row_ids: Sequence[int]) -> None:
        """These rows leave the batch now."""
        for row_id in row_ids:
            if (at := self.cancelled_at.pop(row_id, None)) is not None:
                self.late_steps = max(self.late_steps, self.steps - at)


class _NotingLink(ThreadLink):
    """Notes at which step each Cancel is sent."""

    def __init__(self, observer: Observer, on_message: OnMessage, on_lost: OnLost, open_engine: OpenEngine) -> None:
        super().__init__(on_message, on_lost, open_engine)
        self._observer = observer

    def send(self, message: ToWorker) -> None:
        if isinstance(message, Cancel):
            # The first Cancel of a row counts, and one of a row that has ended by itself is never removed.
            for row_id in message.row_ids:
                self._observer.cancelled_at.setdefault(row_id, self._observer.steps)
        super().send(message)


class _CountingEngine:
    """Counts the steps as they begin; in the engine's thread."""

    def __init__(self, observer: Observer, engine: Engine) -> None:
        self._observer = observer
        self._engine = engine

    @classmethod
    def opened(cls, observer: Observer, open_engine: OpenEngine, load: Load) -> _CountingEngine:
        """As OpenEngine."""
        return cls(observer, open_engine(load))

    @property
    def loaded(self) -> Loaded:
        return self._engine.loaded

    @property
    def active_rows(self) -> int:
        return self._engine.active_rows

    def submit(self, rows: Sequence[Row]) -> list[RowFailed]:
        return self._engine.submit(rows)

    def cancel(self, row_ids: Sequence[int]) -> list[int]:
        removed = self._engine.cancel(row_ids)
        self._observer.removed(removed)
        return removed

    def expected_seconds(self) -> float:
        return self._engine.expected_seconds()

    def step(self) -> Step:
        self._observer.steps += 1
        return self._engine.step()

    def rest(self) -> None:
        self._engine.rest()

    def close(self) -> None:
        self._engine.close()
