"""What a model answers alone: mlx_lm's own `generate_step`, greedy, in float32."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import mlx.core as mx
import mlx_lm.utils
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache

from tests.helpers.models.base import VOCAB_SIZE

TIE = 1e-3
"""Two tokens whose log-probabilities are this close have no order that rounding cannot turn."""
WHOLE_PROMPT = 2048
"""A chunk that no prompt of the sweep exceeds."""
MOST_DRAWS = 20


class Answer(NamedTuple):
    """Tokens and the log-probability of each. It ends before the first near tie."""

    tokens: list[int]
    logprobs: list[float]

    def first(self, count: int) -> Answer:
        """So many of its tokens."""
        return Answer(self.tokens[:count], self.logprobs[:count])


class Reference:
    """One model alone. Belongs to the thread that made it."""

    def __init__(self, folder: Path) -> None:
        self._network, _ = mlx_lm.utils.load_model(folder)
        self._network.set_dtype(mx.float32)
        self._answers: dict[tuple[int, ...], Answer] = {}
        self._asked: dict[tuple[int, ...], int] = {}

    def answer(self, prompt: Sequence[int], count: int) -> Answer:
        """At most so many tokens: fewer where a near tie comes first."""
        key = tuple(prompt)
        if self._asked.get(key, 0) < count:
            self._answers[key], self._asked[key] = self.generate(prompt, count, WHOLE_PROMPT), count
        return self._answers[key].first(count)

    def generate(self, prompt: Sequence[int], count: int, chunk_tokens: int) -> Answer:
        """The same with the prompt processed in chunks, computed anew."""
        tokens: list[int] = []
        logprobs: list[float] = []
        steps = generate_step(mx.array(list(prompt)), self._network, max_tokens=count, prefill_step_size=chunk_tokens)
        for token, distribution in steps:
            second, best = cast(list[float], mx.sort(distribution)[-2:].tolist())
            if best - second < TIE:
                break
            tokens.append(int(token))
            logprobs.append(best)
        return Answer(tokens, logprobs)

    def caches(self) -> list[str]:
        """The names of the classes that the model keeps its rows in, those inside of lists too."""
        return sorted(set(_class_names(make_prompt_cache(self._network))))


def _class_names(caches: Sequence[object]) -> list[str]:
    names: list[str] = []
    for cache in caches:
        names += [type(cache).__name__, *_class_names(getattr(cache, "caches", ()))]
    return names


class Prompts:
    """Random prompts, the same for the same seed and model."""

    def __init__(self, reference: Reference, seed: int) -> None:
        self._reference = reference
        self._random = random.Random(seed)

    def tokens(self, count: int) -> list[int]:
        """Any tokens."""
        return [self._random.randrange(VOCAB_SIZE) for _ in range(count)]

    def answered(self, count: int, answer_tokens: int, after: Sequence[int] = ()) -> tuple[list[int], Answer]:
        """A prompt of `after` and so many fresh tokens, whose answer of that length holds no near tie; the best of a
        few tries where all hold one."""
        tries = []
        for _ in range(MOST_DRAWS if count else 1):
            prompt = [*after, *self.tokens(count)]
            tries.append((prompt, self._reference.answer(prompt, answer_tokens)))
            if len(tries[-1][1].tokens) == answer_tokens:
                return tries[-1]
        return max(tries, key=lambda tried: len(tried[1].tokens))
