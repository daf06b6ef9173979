"""A test at load: rows together against rows alone, on the device and with the weights that will serve.

From it follows how the model's rows may share the device. The reference is what mlx_lm's `generate_step` does with one
prompt: all of it in one pass, then token by token. The same tokens are fed in every way, so that a difference in one
step is not carried into the next by another choice.

Short rows cannot show everything: a sliding window that wraps, or a choice among thousands of keys, is longer than they
are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import msgspec
from mlx.nn.layers.base import Module

from mlx_grpc.engine.batch.generator import Batching
from mlx_grpc.engine.batch.pace import Rate
from mlx_grpc.engine.loading.rate import measured_rate
from mlx_grpc.engine.loading.ways import WAYS, Way, alone, together

ONE_ROW = "one row alone"
TOP = 20
"""The likeliest tokens of the reference, whose log-probabilities are compared."""
FLOAT32_TOLERANCE = 1e-3
HALF_TOLERANCE = 0.25
TRIES = 2
"""With other tokens each: in half precision a router that is nearly undecided may choose another expert."""
SIZES = ((25, 7, 4), (13, 4, 3), (7, 3, 2), (4, 2, 1))
"""Tokens of the long and of the short prompt, and steps after them; the first that the time allows."""
SHORTEST = 2
"""Tokens of one more prompt: a state that holds the last few tokens is not full yet."""
COMPILING = 3.0
"""A comparison that takes so many times as long as its rate says has compiled kernels."""
SHARE_OF_TIME = 0.3
"""Of the time that there is, for the first comparison: two more may follow."""


class Verdict(msgspec.Struct, frozen=True):
    """How a model's rows may share the device. `difference`: the largest of log-probabilities that was seen that way.
    `grouped_masks`: see `SharedArrays`. The rate is the device's: see `pace.Rate`."""

    batching: str
    grouped_masks: bool
    difference: float
    fixed_seconds: float
    seconds_per_token: float
    note: str = ""

    @property
    def rate(self) -> Rate:
        """How long a step takes."""
        return Rate(self.fixed_seconds, self.seconds_per_token)


def tolerance_of(backend: str, dtype: str) -> float:
    """How far log-probabilities may differ. CUDA multiplies float32 in TF32, which has the digits of half precision."""
    return FLOAT32_TOLERANCE if dtype == "float32" and backend != "cuda" else HALF_TOLERANCE


class Unfit(Exception):
    """The model fails even alone. Its text is one line that says how."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Prompts, the tokens that are fed after each, and the logits [vocab] that each then has alone, step by step."""

    prompts: list[list[int]]
    forced: list[list[int]]
    logits: list[list[mx.array]]


class Trial:
    """One model's test. `budget_seconds`: when to stop, with what was found until then. `trying` is told what is about
    to be computed, since the process may not survive it. Raises Unfit for a model that fails alone."""

    def __init__(
        self,
        network: Module,
        vocab_size: int,
        tolerance: float,
        budget_seconds: float,
        trying: Callable[[str], None] = lambda what: None,
    ) -> None:
        self._network = network
        self._vocab_size = vocab_size
        self._tolerance = tolerance
        self._budget_seconds = budget_seconds
        self._trying = trying
        self._spent_seconds = 0.0
        trying(ONE_ROW)
        try:
            self.rate = measured_rate(network)
        except Exception as error:
            raise Unfit(_one_line(error)) from error
        self._size = self._affordable_size()
        self._samples = [self._sample(0)]

    def verdict(self, ways: Sequence[Way] = WAYS) -> Verdict:
        """The first of the ways that gives what one row alone gives. Raises Unfit when none does."""
        why = why_not = ""
        for way in ways:
            if self._time_is_up() and way.batching is not Batching.ALONE:
                why_not = why_not or f"not tested further after {self._budget_seconds:.0f} s"
                continue
            self._trying(str(way))
            difference, why = self._difference(way)
            if difference <= self._tolerance:
                return self._passed(way, difference, why_not)
            why_not = why_not or why
        raise Unfit(f"it answers differently when its prompt is processed in parts: {why}")

    def _passed(self, way: Way, difference: float, note: str) -> Verdict:
        return Verdict(
            batching=way.batching.value,
            grouped_masks=way.grouped_masks,
            difference=difference,
            fixed_seconds=self.rate.fixed_seconds,
            seconds_per_token=self.rate.seconds_per_token,
            note=note,
        )

    def _time_is_up(self) -> bool:
        return self._spent_seconds > self._budget_seconds

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts the time of one comparison. What is far above its rate is the compiling of kernels, which requests
        would wait for otherwise: that is loading, and not counted."""
        long, _, steps = self._size
        likely_seconds = self.rate.seconds_for(3 * (long + steps + 1)) + 3 * (steps + 4) * self.rate.fixed_seconds
        began_seconds = time.monotonic()
        try:
            yield
        finally:
            self._spent_seconds += min(time.monotonic() - began_seconds, COMPILING * likely_seconds)

    def _affordable_size(self) -> tuple[int, int, int]:
        """The largest rows that can be computed alone and in the first way within the time."""
        for long, short, steps in SIZES:
            tokens, passes = 4 * long + short + 6 * steps, 4 * steps + 12
            needed_seconds = self.rate.fixed_seconds * passes + self.rate.seconds_per_token * tokens
            if needed_seconds <= SHARE_OF_TIME * self._budget_seconds:
                return long, short, steps
        return SIZES[-1]

    def _difference(self, way: Way) -> tuple[float, str]:
        """The least of the tries' differences, and what went wrong, in one line."""
        least, why = math.inf, ""
        for number in range(TRIES):
            if number == len(self._samples):
                self._samples.append(self._sample(number))
            sample = self._samples[number]
            try:
                with self._counted():
                    found = together(self._network, sample.prompts, sample.forced, way)
                    difference = max(map(_difference, _flat(sample.logits), _flat(found)))
            except Exception as error:  # a model can raise anything where it was not made for batches
                return math.inf, _one_line(error)
            least = min(least, difference)
            why = f"its log-probabilities differ by {least:.2g}"
            if least <= self._tolerance or self._time_is_up():
                break
        return least, why

    def _sample(self, number: int) -> Sample:
        """The first prompt is the longest, the last the shortest."""
        long, short, steps = self._size
        lengths = (long, short, SHORTEST)
        rows = [self._tokens(length + steps, 3 * number + place) for place, length in enumerate(lengths)]
        prompts, forced = [row[:-steps] for row in rows], [row[-steps:] for row in rows]
        try:
            with self._counted():
                logits = [alone(self._network, *row) for row in zip(prompts, forced, strict=True)]
            finite = all(bool(mx.isfinite(mx.logsumexp(step)).item()) for step in _flat(logits))
        except Exception as error:
            raise Unfit(_one_line(error)) from error
        if not finite:
            raise Unfit("its logits are not finite")
        return Sample(prompts, forced, logits)

    def _tokens(self, count: int, seed: int) -> list[int]:
        """Any tokens: the numbers of a linear congruential generator."""
        tokens, state = [], seed * 7919 + 12345
        for _ in range(count):
            state = (1103515245 * state + 12345) % 2**31
            tokens.append((state >> 8) % self._vocab_size)
        return tokens


def _flat(rows: list[list[mx.array]]) -> list[mx.array]:
    return [step for row in rows for step in row]


def _difference(reference: mx.array, found: mx.array) -> float:
    """Of the log-probabilities of the reference's likeliest tokens; infinite where there is NaN."""
    reference, found = (_logprobs(logits) for logits in (reference, found))
    likeliest = mx.argsort(-reference)[:TOP]
    difference = cast(float, mx.max(mx.abs(reference[likeliest] - found[likeliest])).item())
    return math.inf if math.isnan(difference) else difference


def _logprobs(logits: mx.array) -> mx.array:
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
