"""How much prefill fits between two decode steps without anybody noticing: pure arithmetic, told of times.

Running streams wait while prompts are processed, so with rows decoding a step gets as many prompt tokens as, by the
measured rate, take no longer than the target. With none decoding nobody waits, and the step takes all it may.
"""

from __future__ import annotations

MIN_TOKENS = 32
"""A smaller chunk takes about as long as this one."""
FADE = 0.7
"""How much of the old rate stays at each new measurement; chunks differ in length and position."""


class PrefillPace:
    """Prompt tokens for one step. `target_seconds`: what running streams may be held up; `max_tokens`: what a step may
    take in any case."""

    def __init__(self, target_seconds: float, max_tokens: int) -> None:
        self._target_seconds = target_seconds
        self._max_tokens = max(1, max_tokens)
        self._tokens_per_second: float | None = None

    def budget_tokens(self, decoding_rows: int) -> int:
        """Tokens for the next step. Before anything has been measured, a quarter of the most."""
        if decoding_rows == 0:
            return self._max_tokens
        if self._tokens_per_second is None:
            return max(min(MIN_TOKENS, self._max_tokens), self._max_tokens // 4)
        wanted = min(self._tokens_per_second * self._target_seconds, self._max_tokens)
        return min(self._max_tokens, max(MIN_TOKENS, int(wanted)))

    def record(self, tokens: int, seconds: float) -> None:
        """A step processed so many prompt tokens in that time. Small ones measure the step, not the tokens."""
        if tokens < MIN_TOKENS or seconds <= 0.0:
            return
        rate = tokens / seconds
        known = self._tokens_per_second
        self._tokens_per_second = rate if known is None else FADE * known + (1.0 - FADE) * rate
