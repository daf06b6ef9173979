"""What the sweep does to one model, each under a short name: `A/direct`, `17/pipelined`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tests.sweep.drive import LOGPROB_TOLERANCE
from tests.sweep.reference import Prompts, Reference
from tests.sweep.scenarios import CHUNK_TOKENS, SCENARIOS, Play
from tests.sweep.schedules import make_schedule, prepare

ORDERS = {"direct": False, "pipelined": True}
"""Of steps: as on a CPU, and as on a GPU, which begins the next step before it has read the last one's tokens."""
SEED = 5
ALONE = "alone"


class Case(NamedTuple):
    """A scenario's letter or a schedule's seed, and the order of steps."""

    what: str
    order: str

    def __str__(self) -> str:
        return f"{self.what}/{self.order}"

    @property
    def pipelined(self) -> bool:
        return ORDERS[self.order]

    def prepare(self, reference: Reference) -> Play:
        """In the reference's thread: rows and their answers."""
        if self.what in SCENARIOS:
            return SCENARIOS[self.what].prepare(reference, SEED)
        return prepare(make_schedule(int(self.what)), reference)


def parse(text: str) -> Case:
    """What `str` of a case gave."""
    what, _, order = text.partition("/")
    return Case(what, order)


def scenario_cases(letters: Iterable[str] = tuple(SCENARIOS)) -> list[Case]:
    """These scenarios, each in both orders."""
    return [Case(letter, order) for letter in letters for order in ORDERS]


def schedule_cases(count: int) -> list[Case]:
    """Random schedules with the seeds 0 to count - 1, each in both orders."""
    return [Case(str(seed), order) for seed in range(count) for order in ORDERS]


def alone_problems(reference: Reference) -> list[str]:
    """Whether mlx_lm gives the same answer with a prompt in one piece and in chunks. Where it does not, there is no
    right answer to compare with."""
    problems = []
    for length in (40, 130):
        prompt, answer = Prompts(reference, SEED).answered(length, 12)
        chunked = reference.generate(prompt, 12, CHUNK_TOKENS)
        pairs = zip(chunked.tokens, answer.tokens, chunked.logprobs, answer.logprobs, strict=False)
        for place, (token, wanted, logprob, wanted_logprob) in enumerate(pairs):
            if token != wanted or abs(logprob - wanted_logprob) > LOGPROB_TOLERANCE:
                problems.append(
                    f"{length} tokens in chunks of {CHUNK_TOKENS}, token {place}: {token} ({logprob:.4f}) "
                    f"for {wanted} ({wanted_logprob:.4f})"
                )
                break
    return problems
