"""How much prefill fits into a step: pure arithmetic, told of times.

Running streams wait while prompts are processed, so with rows decoding a step gets as many prompt tokens as take no
longer than the gap that they may see. With none decoding a step is bounded by seconds, too: while it lasts nobody can
enter or leave, and an engine that is silent for long is taken for hung.

How long tokens take is not assumed: on a GPU a small chunk costs about as much as a large one, on a CPU twice the
tokens are twice the time. So a budget grows while steps stay below its target and shrinks when they pass it.

Where more wait for their first token than for their next, the gap is up to four times as long: a step costs about the
same for few rows as for many, so steps between the prompts of a crowd make all of it wait, the few included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_TOKENS = 32
"""A smaller chunk takes about as long, on most machines; chunks become smaller only where that was seen to help."""
MOST_CHANGE = 2.0
"""By how much one measurement may move a budget: one slow step, which may have compiled, is not believed whole."""
MOST_PATIENCE = 4.0
FIRST_TOKENS_WEIGHT = 3.0
"""A wait for the first token counts as so many waits for the next one."""
WORTH_IT = 2.0
"""A chunk that takes so many times as long as the shortest step is made smaller with profit."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How long a step takes: `fixed_seconds` whatever it holds, and so long for each prompt token."""

    fixed_seconds: float
    seconds_per_token: float

    def tokens_in(self, seconds: float) -> float:
        """How many tokens take that time; MIN_TOKENS where the fixed part alone takes it."""
        left_seconds = seconds - self.fixed_seconds
        return max(1.0, left_seconds / max(self.seconds_per_token, 1e-9)) if left_seconds > 0.0 else MIN_TOKENS

    def seconds_for(self, tokens: int) -> float:
        """How long so many tokens take."""
        return self.fixed_seconds + tokens * self.seconds_per_token


class ChunkBudget:
    """Prompt tokens that take `target_seconds`, from what earlier chunks took; at most `most_tokens`."""

    def __init__(self, target_seconds: float, most_tokens: int, rate: Rate | None) -> None:
        self._target_seconds = target_seconds
        self._most_tokens = max(1, most_tokens)
        self._tokens = min(self._most_tokens, rate.tokens_in(target_seconds) if rate else self._most_tokens)
        self._shortest_seconds = rate.fixed_seconds if rate else math.inf

    def tokens(self, patience: float = 1.0) -> int:
        """How many, where the target is `patience` times as long."""
        return max(1, int(min(self._most_tokens, self._tokens * patience)))

    def record(self, tokens: int, seconds: float, patience: float = 1.0) -> None:
        """A chunk of so many tokens took that time. A short one that was quick tells that its tokens fit the target,
        and nothing of what more would take."""
        self._shortest_seconds = min(self._shortest_seconds, seconds)
        change = min(MOST_CHANGE, max(1.0 / MOST_CHANGE, self._target_seconds * patience / seconds))
        wanted = tokens * change / patience
        if change >= 1.0:
            self._tokens = min(self._most_tokens, max(self._tokens, wanted))
            return
        least = 1.0 if seconds >= WORTH_IT * self._shortest_seconds else MIN_TOKENS
        self._tokens = min(self._tokens, max(wanted, least))


class PrefillPace:
    """Prompt tokens for one step. `gap_seconds`: what running streams may be held up while fewer wait than run;
    `chunk_seconds`: what a step may take in any case, and `max_tokens` what it may hold; `rate`: what was measured
    before, if anything was."""

    def __init__(self, gap_seconds: float, chunk_seconds: float, max_tokens: int, rate: Rate | None = None) -> None:
        self._beside = ChunkBudget(gap_seconds, max_tokens, rate)
        self._alone = ChunkBudget(chunk_seconds, max_tokens, rate)
        self._patience = 1.0
        self._chunk_seconds = chunk_seconds
        self._seconds_per_token = rate.seconds_per_token if rate else 0.0
        self._last_seconds = rate.fixed_seconds if rate else 0.0

    def budget_tokens(self, decoding_rows: int, waiting_rows: int = 0) -> int:
        """Tokens for the next step. Waiting are those in prefill, and those who have not begun."""
        if decoding_rows == 0:
            return self._alone.tokens()
        self._patience = min(MOST_PATIENCE, max(1.0, FIRST_TOKENS_WEIGHT * waiting_rows / decoding_rows))
        return min(self._beside.tokens(self._patience), self._alone.tokens())

    def record(self, tokens: int, seconds: float) -> None:
        """A step processed so many prompt tokens, padding included, in that time."""
        if tokens > 0 and seconds > 0.0:
            self._beside.record(tokens, seconds, self._patience)
            self._alone.record(tokens, seconds)
            # A slow step is believed at once, a quick one by half: an expected time is better too long than too short.
            self._seconds_per_token = max(seconds / tokens, self._seconds_per_token / 2)
            self._last_seconds = seconds

    def expected_seconds(self, tokens: int) -> float:
        """How long a chunk of so many tokens, as `budget_tokens` gave them, may take; 0 where nothing was measured."""
        return max(self._last_seconds, min(self._chunk_seconds, tokens * self._seconds_per_token))
