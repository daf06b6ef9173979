"""What is asked of a server, and what was seen of the answer. Times are `time.perf_counter()` seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `messages` instead of `prompt` asks for a chat; `seed` None sends none."""

    prompt: str = ""
    messages: tuple[Mapping[str, str], ...] = ()
    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(slots=True)
class Record:
    """One request's life, filled in as it goes; of a request that is cut short it holds what was seen until then."""

    arrived_seconds: float
    """When it was sent, or in an open loop when it was due: a load generator that is late must not look quick."""
    deliveries: list[float] = field(default_factory=list)
    """When each message that brought output came; a message may bring several tokens."""
    text: str = ""
    ended_seconds: float = 0.0
    """0 while it runs."""
    failure: str = ""
    """What went wrong, as a code that can be counted; empty when nothing did."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def deliver(self, text: str) -> None:
        """A message with output has come."""
        self.deliveries.append(time.perf_counter())
        self.text += text

    @property
    def first_seconds(self) -> float | None:
        """From the arrival to the first output."""
        return self.deliveries[0] - self.arrived_seconds if self.deliveries else None

    @property
    def gaps_seconds(self) -> list[float]:
        """Between one output and the next."""
        return [later - earlier for earlier, later in zip(self.deliveries, self.deliveries[1:], strict=False)]


class Driver(Protocol):
    """Sends requests to one server."""

    async def ask(self, ask: Ask, record: Record) -> None:
        """Sends one and reads its answer into the record. Failures go there too; only being cancelled raises."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
