"""What has happened since the server started, counted in one place: the service counts, metrics and status read.

Plain numbers, no clock and no lock: one event loop owns them. No prompt and no output is ever among them.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from mlx_grpc.observe.histogram import Histogram

RECENT_ERRORS = 50
RECENT_FIRST_TOKENS = 256


@dataclass(frozen=True, slots=True)
class RecentError:
    """A refused or failed call. `unix_seconds` is wall time, for people."""

    unix_seconds: float
    model: str
    reason: str
    message: str
    generation_id: str = ""


@dataclass(slots=True)
class Stats:
    """Counters of the whole server; those by model have its id as key."""

    accepted: Counter[str] = field(default_factory=Counter)
    """Calls accepted, by model."""
    completed: Counter[str] = field(default_factory=Counter)
    """Generations that ended well, by finish reason."""
    abandoned: Counter[str] = field(default_factory=Counter)
    """Accepted calls that their client left before the end, by model."""
    refused: Counter[str] = field(default_factory=Counter)
    """Calls refused before they were accepted, by the error's reason."""
    failed: Counter[str] = field(default_factory=Counter)
    """Accepted calls that ended with an error, by the error's reason."""
    prompt_tokens: Counter[str] = field(default_factory=Counter)
    cached_prompt_tokens: Counter[str] = field(default_factory=Counter)
    generated_tokens: Counter[str] = field(default_factory=Counter)
    """Tokens sampled, by model, as they come."""
    restarts: Counter[str] = field(default_factory=Counter)
    """Engines started again after a loss, by model."""
    crashes: Counter[str] = field(default_factory=Counter)
    """Engines lost, by model: crashed, killed by the watchdog, or out of memory."""
    resumed: Counter[str] = field(default_factory=Counter)
    """Requests that went on in another engine, by model."""
    stalls: Counter[str] = field(default_factory=Counter)
    """Engines that the watchdog killed, by model."""
    queue_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_FIRST_TOKENS))
    first_token_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_FIRST_TOKENS))
    """Of the calls that ended last, oldest first."""
    recent_errors: deque[RecentError] = field(default_factory=lambda: deque(maxlen=RECENT_ERRORS))
    loop_lag_seconds: float = 0.0
    """How late the event loop was when it was last measured, and at worst in the last minute."""
    worst_loop_lag_seconds: float = 0.0
    queue_histogram: Histogram = field(default_factory=Histogram)
    first_token_histogram: Histogram = field(default_factory=Histogram)

    def record_latencies(self, queue_seconds: float, first_token_seconds: float) -> None:
        """Count a call that has ended."""
        self.queue_seconds.append(queue_seconds)
        self.first_token_seconds.append(first_token_seconds)
        self.queue_histogram.add(queue_seconds)
        self.first_token_histogram.add(first_token_seconds)
