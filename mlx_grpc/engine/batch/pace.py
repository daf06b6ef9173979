"""How much prefill fits between two decode steps without anybody noticing: pure arithmetic, told of times.

Running streams wait while prompts are processed, so with rows decoding a step gets as many prompt tokens as take no
longer than the target. How long tokens take is not assumed: on a GPU a small chunk costs about as much as a large one,
on a CPU twice the tokens are twice the time. So the budget grows while steps stay below the target and shrinks when
they pass it. With none decoding nobody waits, and the step takes all it may.

Where more wait for their first token than for their next, the target is up to four times as long: a step costs about
the same for few rows as for many, so steps between the prompts of a crowd make all of it wait, the few included.
"""

from __future__ import annotations

MIN_TOKENS = 32
"""A smaller chunk takes about as long as this one."""
MOST_CHANGE = 2.0
"""By how much one measurement may move the budget: one slow step, compiling its kernels perhaps, is not believed
whole."""
MOST_PATIENCE = 4.0
FIRST_TOKENS_WEIGHT = 3.0
"""A wait for the first token counts as so many waits for the next one."""


class PrefillPace:
    """Prompt tokens for one step. `target_seconds`: what running streams may be held up while fewer wait than run;
    `max_tokens`: what a step may take in any case."""

    def __init__(self, target_seconds: float, max_tokens: int) -> None:
        self._target_seconds = target_seconds
        self._max_tokens = max(1, max_tokens)
        self._budget_tokens = float(self._max_tokens)
        self._patience = 1.0

    def budget_tokens(self, decoding_rows: int, waiting_rows: int = 0) -> int:
        """Tokens for the next step. Waiting are those in prefill, and those who have not begun."""
        if decoding_rows == 0:
            return self._max_tokens
        self._patience = min(MOST_PATIENCE, max(1.0, FIRST_TOKENS_WEIGHT * waiting_rows / decoding_rows))
        return int(min(self._max_tokens, self._budget_tokens * self._patience))

    def record(self, tokens: int, seconds: float) -> None:
        """A step processed so many prompt tokens, padding included, in that time. One that was short because there was
        no more to do tells that its tokens fit the target, and nothing of what more would take."""
        if tokens <= 0 or seconds <= 0.0:
            return
        change = min(MOST_CHANGE, max(1.0 / MOST_CHANGE, self._target_seconds * self._patience / seconds))
        wanted = tokens * change / self._patience
        if change < 1.0:
            self._budget_tokens = max(min(MIN_TOKENS, self._max_tokens), min(self._budget_tokens, wanted))
        else:
            self._budget_tokens = min(self._max_tokens, max(self._budget_tokens, wanted))
