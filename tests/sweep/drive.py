"""An engine in the hands of a test: rows in, steps, and what each row said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mlx_grpc.engine.messages import Load, Row, RowToken, SamplingParams
from mlx_grpc.engine.mlx_engine import MlxEngine, open_mlx
from tests.sweep.reference import Answer

MAX_ROWS = 8
MEMORY_BYTES = 2 << 30
MOST_STEPS = 5000
LOGPROB_TOLERANCE = 1e-3
"""What a log-probability may differ by in float32: the bound of the engine's own test at load."""


class Wanted(NamedTuple):
    """A row and the answer that the model gives alone. `output_tokens` of it are there already, as after a crash."""

    row_id: int
    prompt: list[int]
    answer: Answer
    output_tokens: int = 0
    use_cache: bool = False

    def row(self) -> Row:
        """As the engine takes it. Rows with even ids ask for log-probabilities, which are compared too."""
        output = self.answer.tokens[: self.output_tokens]
        count = len(self.answer.tokens)
        top_logprobs = 0 if self.row_id % 2 == 0 else -1
        return Row(
            self.row_id, self.prompt, output, count, 0, [], SamplingParams(), top_logprobs, use_cache=self.use_cache
        )


class Drive:
    """One engine, used by the thread that opened it."""

    def __init__(self, engine: MlxEngine) -> None:
        self.engine = engine
        self.said: dict[int, list[RowToken]] = {}
        self.cached: dict[int, int] = {}
        """How many tokens of each row came from the prefix cache."""
        self.failures: list[str] = []

    def submit(self, rows: Sequence[Row]) -> None:
        """Let rows enter together; those that the engine refuses are failures."""
        self.failures += [f"row {failed.row_id} refused: {failed.reason}" for failed in self.engine.submit(rows)]

    def step(self) -> list[RowToken]:
        """One engine step; returns the tokens that it gave."""
        step = self.engine.step()
        for token in step.tokens:
            self.said.setdefault(token.row_id, []).append(token)
        for progress in step.prefill:
            self.cached[progress.row_id] = progress.cached
        self.failures += [f"row {failed.row_id} failed: {failed.reason}" for failed in step.failed]
        return step.tokens

    def drain(self) -> None:
        """Step until no row is left."""
        self.until(lambda: not self.engine.active_rows)

    def until(self, done: Callable[[], bool]) -> None:
        """Step until something holds. Raises RuntimeError when it does not within many steps."""
        for _ in range(MOST_STEPS):
            if done():
                return
            self.step()
        raise RuntimeError(f"not done within {MOST_STEPS} steps")

    def run(self, wanted: Sequence[Wanted]) -> None:
        """Submit these together and step until all have ended."""
        self.submit([each.row() for each in wanted])
        self.drain()

    def problems(self, wanted: Sequence[Wanted]) -> list[str]:
        """What differs from the answers, and which rows failed."""
        differences = [difference(each, self.said.get(each.row_id, [])) for each in wanted]
        return [*self.failures, *filter(None, differences)]


@contextmanager
def driving(folder: Path, *, chunk_tokens: int, pipelined: bool, prefix_cache_bytes: int = 0) -> Iterator[Drive]:
    """An engine until the end of the block. After it, this thread cannot use MLX. Pipelined is a GPU's order of
    steps. Raises LoadError."""
    load = Load(
        str(folder),
        MAX_ROWS,
        prefill_step_tokens=chunk_tokens,
        memory_limit_bytes=MEMORY_BYTES,
        prefix_cache_bytes=prefix_cache_bytes,
    )
    engine = open_mlx(load)
    try:
        engine.generator.pipelined = pipelined
        yield Drive(engine)
    finally:
        engine.close()


def difference(wanted: Wanted, said: Sequence[RowToken], *, ended: bool = True) -> str | None:
    """Where a row's tokens leave the answer, in words. A row that was cancelled has not ended: it may be short."""
    tokens, logprobs = wanted.answer.tokens[wanted.output_tokens :], wanted.answer.logprobs[wanted.output_tokens :]
    for place, (token, logprob, got) in enumerate(zip(tokens, logprobs, said, strict=False)):
        if got.token != token:
            return f"row {wanted.row_id} token {place}: {got.token} for {token}"
        if got.logprobs is not None and not abs(got.logprobs.logprob - logprob) <= LOGPROB_TOLERANCE:
            return f"row {wanted.row_id} token {place}: logprob {got.logprobs.logprob:.4f} for {logprob:.4f}"
    if len(said) > len(tokens) or (ended and len(said) < len(tokens)):
        return f"row {wanted.row_id}: {len(said)} tokens for {len(tokens)}"
    return None
