"""How fast the engine is, measured from what it did, and what that means for those who wait.

Each rate is a ratio of two sums that fade together: every new sample multiplies both by 0.5 ** (its weight /
half-life) before it is added. The weight is engine-busy seconds for steps and one per request for departures,
never wall time: an idle hour adds no weight, so it changes nothing. The first sample counts in full.

    steps/s            = sum(1) / sum(step seconds)                          over all steps
    decode tokens/s    = sum(decoded rows) / sum(step seconds)               over steps that decoded
    prefill tokens/s   = sum(tokens * tokens) / sum(tokens * step seconds)   over steps with enough tokens
    residence seconds  = sum(seconds from admission to departure) / sum(1)   over rows that left
    wait               = departures needed * residence / rows                rows leave at rows / residence
    first token        = wait + prompt tokens / prefill tokens/s

The prefill rate is that of whole steps, decoding included, since that is what a prompt sees among running
streams. A step that prefills a handful of tokens costs about as much as one that prefills a hundred, and
would make long prompts look hopeless: tiny ones are left out, and each of the others counts by its tokens.
"""

from __future__ import annotations

import math

STEP_HALF_LIFE_SECONDS = 10.0
"""Busy seconds after which a step counts half. Speeds were seen to drift by two within minutes."""

DEPARTURE_HALF_LIFE = 16.0
"""Departures after which one counts half."""

MIN_PREFILL_TOKENS = 32
"""Steps that prefill fewer tokens measure the step, not the tokens."""


class FadingRatio:
    """sum(amount) / sum(weight), older samples fading; None before the first one."""

    __slots__ = ("_amount", "_half_life", "_weight")

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._amount = 0.0
        self._weight = 0.0

    def add(self, amount: float, weight: float, age: float | None = None) -> None:
        """Count a sample; `age` is how much it makes the older ones fade (default: its weight)."""
        fade = 0.5 ** ((weight if age is None else age) / self._half_life)
        self._amount = self._amount * fade + amount
        self._weight = self._weight * fade + weight

    @property
    def value(self) -> float | None:
        """The ratio now."""
        return self._amount / self._weight if self._weight > 0.0 else None


class Rates:
    """Measured rates of one engine. Formulas and units: the module's docstring."""

    def __init__(self) -> None:
        self._steps = FadingRatio(STEP_HALF_LIFE_SECONDS)
        self._decode = FadingRatio(STEP_HALF_LIFE_SECONDS)
        self._prefill = FadingRatio(STEP_HALF_LIFE_SECONDS)
        self._residence = FadingRatio(DEPARTURE_HALF_LIFE)

    def record_step(self, seconds: float, decoded_rows: int, prefill_tokens: int) -> None:
        """Count one engine step that took `seconds`; one that took no time tells nothing."""
        if not seconds > 0.0:
            return
        self._steps.add(1.0, seconds)
        if decoded_rows > 0:
            self._decode.add(decoded_rows, seconds)
        if prefill_tokens >= MIN_PREFILL_TOKENS:
            self._prefill.add(float(prefill_tokens) ** 2, prefill_tokens * seconds, age=seconds)

    def record_finished(self, service_seconds: float) -> None:
        """Count a row that left the batch `service_seconds` after it was admitted."""
        if service_seconds >= 0.0:
            self._residence.add(service_seconds, 1.0)

    @property
    def steps_per_second(self) -> float | None:
        """Engine steps in a busy second."""
        return self._steps.value

    @property
    def decode_tokens_per_second(self) -> float | None:
        """Tokens that all rows together decode in a busy second."""
        return self._decode.value

    @property
    def prefill_tokens_per_second(self) -> float | None:
        """Prompt tokens that all prompts together advance in a second of prefilling."""
        return self._prefill.value

    @property
    def residence_seconds(self) -> float | None:
        """Mean time from admission to departure."""
        return self._residence.value

    def estimated_wait_seconds(self, departures: int, rows: int) -> float | None:
        """Seconds until `departures` of `rows` rows have left; None while nothing has been measured."""
        if departures <= 0:
            return 0.0
        residence = self.residence_seconds
        return None if residence is None else departures * residence / max(1, rows)

    def departures_within(self, seconds: float, rows: int) -> float:
        """How many of `rows` rows leave in that time; no bound while nothing has been measured."""
        residence = self.residence_seconds
        return seconds * max(1, rows) / residence if residence else math.inf

    def first_token_seconds(self, prompt_tokens: int, departures: int, rows: int) -> float | None:
        """Seconds until a prompt that waits for `departures` has its first token; None where a rate is
        unknown.

        The prompt is taken to prefill alone: others that prefill beside it make it later, never earlier.
        """
        wait_seconds = self.estimated_wait_seconds(departures, rows)
        rate = self.prefill_tokens_per_second
        if wait_seconds is None or rate is None:
            return None
        return wait_seconds + prompt_tokens / rate
