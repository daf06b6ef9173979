"""Logits that are not finite end one row, and nothing of it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_grpc.engine.messages import Row, RowFailed, RowPrefill, SamplingParams, Step, Submit
from tests.helpers.llama import VOCAB_SIZE, make_llama
from tests.helpers.worker import ThreadWorker, load, next_step, started

BAD_TOKEN = 99
GOOD, OTHER = list(range(20, 60)), list(range(60, 85))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that cannot compute one of its tokens, as a damaged file or an overflow in half precision has it."""
    folder = make_llama(tmp_path_factory.mktemp("nan"))
    path = str(folder / "model.safetensors")
    weights = dict(mx.load(path))  # type: ignore[arg-type]
    embedding = weights["model.embed_tokens.weight"]
    embedding[BAD_TOKEN] = float("nan")
    mx.save_safetensors(path, weights, {"format": "mlx"})
    return folder


@pytest.fixture
def worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadWorker]:
    """A worker that has loaded it; the test at load does not use the token."""
    monkeypatch.setattr("mlx_grpc.engine.loading.trial.Trial._tokens", lambda _, count, seed: [seed + 1] * count)
    with started(ThreadWorker) as worker:
        load(worker, str(folder), prefix_cache_bytes=1 << 24)
        assert isinstance(worker, ThreadWorker)
        yield worker


def rows_of(worker: ThreadWorker, rows: list[Row]) -> tuple[dict[int, list[int]], list[RowFailed], list[RowPrefill]]:
    """Tokens, failures and progress, until all rows have left."""
    worker.send(Submit(rows))
    tokens: dict[int, list[int]] = {row.row_id: [] for row in rows}
    steps: list[Step] = []
    while not steps or steps[-1].active_rows:
        steps.append(next_step(worker))
        for token in steps[-1].tokens:
            tokens[token.row_id].append(token.token)
    return tokens, [one for step in steps for one in step.failed], [one for step in steps for one in step.prefill]


def row(row_id: int, prompt: list[int], temperature: float = 0.0) -> Row:
    return Row(row_id, prompt, [], 12, 0, [], SamplingParams(temperature=temperature, seed=row_id))


@pytest.mark.parametrize("temperature", [0.0, 0.8], ids=["greedy", "seeded"])
def test_a_row_with_logits_that_are_not_finite_ends_alone(worker: ThreadWorker, temperature: float) -> None:
    """Its neighbours have the tokens that they have without it."""
    alone = [rows_of(worker, [row(one, prompt, temperature)])[0][one] for one, prompt in ((1, GOOD), (2, OTHER))]
    together = [row(1, GOOD, temperature), row(3, [*GOOD, BAD_TOKEN, 5], temperature), row(2, OTHER, temperature)]
    tokens, failed, _ = rows_of(worker, together)
    assert [(one.row_id, one.finite) for one in failed] == [(3, False)]
    assert tokens == {1: alone[0], 2: alone[1], 3: []}


def test_its_cache_is_not_kept(worker: ThreadWorker) -> None:
    """The next request with the same beginning computes it again."""
    bad = [*OTHER, BAD_TOKEN]
    for row_id in (1, 2):
        _, failed, progress = rows_of(worker, [row(row_id, bad)])
        assert [one.row_id for one in failed] == [row_id]
        assert {one.cached for one in progress} == {0}


def test_weights_that_are_not_finite_are_refused(folder: Path, tmp_path: Path) -> None:
    """A model whose every answer would be one."""
    from mlx_grpc.engine.loading.model import load_model
    from mlx_grpc.engine.messages import Load
    from mlx_grpc.engine.protocol import LoadError

    broken = make_llama(tmp_path)
    weights = {name: array * float("nan") for name, array in mx.load(str(broken / "model.safetensors")).items()}  # type: ignore[union-attr]
    mx.save_safetensors(str(broken / "model.safetensors"), weights, {"format": "mlx"})
    with pytest.raises(LoadError, match="its logits are not finite"):
        load_model(Load(str(broken), max_rows=1))
    assert VOCAB_SIZE > BAD_TOKEN
