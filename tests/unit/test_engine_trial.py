"""The test at load: what it finds for networks that are right together, that are not, and that fail alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.nn.layers.base import Module
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import ArraysCache, KVCache

from mlx_grpc.engine.batch.pace import Rate
from mlx_grpc.engine.loading import trial, verdicts
from mlx_grpc.engine.loading.config import chooses_blocks
from mlx_grpc.engine.loading.trial import FLOAT32_TOLERANCE, ONE_ROW, Trial, Unfit, Verdict, tolerance_of
from mlx_grpc.engine.loading.verdicts import Verdicts
from mlx_grpc.engine.loading.ways import WAYS

VOCAB_SIZE = 32
WEIGHT = mx.random.normal((VOCAB_SIZE, VOCAB_SIZE), key=mx.random.key(3))


class Sum(Module):
    """A recurrent network: logits follow from the sum of the row's tokens. `honest`: padding does not count."""

    def __init__(self, *, honest: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.honest = honest
        self.passes = 0

    def make_cache(self) -> list[Any]:
        return [ArraysCache(1)]

    def __call__(self, inputs: mx.array, cache: Sequence[Any]) -> mx.array:
        self.passes += 1
        (state,) = cache
        steps = WEIGHT[inputs]
        mask = state.make_mask(inputs.shape[1]) if self.honest else None
        if mask is not None:
            steps = steps * mask[:, :, None]
        before = mx.zeros((inputs.shape[0], 1, VOCAB_SIZE)) if state[0] is None else state[0]
        sums = before + mx.cumsum(steps, axis=1)
        state[0] = sums[:, -1:]
        return sums


class Attending(Module):
    """Each token sees the mean of what came before. `fails` says in which way it is not made for batches."""

    def __init__(self, fails: str = "") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fails = fails

    def make_cache(self) -> list[Any]:
        return [KVCache()]

    def __call__(self, inputs: mx.array, cache: Sequence[Any]) -> mx.array:
        (own,) = cache
        rows, tokens = inputs.shape
        if self.fails == "alone" or (self.fails == "rows" and rows > 1):
            raise ValueError("it was not made for this")
        mask = create_attention_mask(inputs, own, return_array=True)
        values = WEIGHT[inputs][:, None] * (tokens if self.fails == "chunks" else 1)
        values, _ = own.update_and_fetch(values, values)
        if self.fails == "four axes" and mask is not None and mask.ndim == 4:
            raise ValueError("shapes cannot be broadcast")
        shown = mx.ones((1, 1)) if mask is None else mask.astype(mx.float32)
        shown = mx.broadcast_to(shown.squeeze(2) if shown.ndim == 5 else shown, (rows, 1, tokens, values.shape[2]))
        means = (shown @ values) / shown.sum(axis=-1, keepdims=True)
        logits: mx.array = means[:, 0] * (float("nan") if self.fails == "finite" else 8.0)
        return logits


def judged(network: Module, seconds: float = 60.0) -> Verdict:
    return Trial(network, VOCAB_SIZE, FLOAT32_TOLERANCE, seconds).verdict()


@pytest.mark.parametrize(
    ("network", "batching", "grouped"),
    [
        (Sum(honest=True), "PADDED", False),
        (Sum(honest=False), "ALIGNED", False),
        (Attending(), "PADDED", False),
        (Attending("four axes"), "PADDED", True),
        (Attending("rows"), "ALONE", False),
    ],
    ids=["recurrent", "recurrent without lengths", "attention", "grouped attention", "one row"],
)
def test_rows_share_as_much_as_they_can(network: Module, batching: str, grouped: bool) -> None:
    """The first way that gives what one row alone gives, and a reason where that is not the best one."""
    verdict = judged(network)
    assert (verdict.batching, verdict.grouped_masks) == (batching, grouped)
    assert verdict.difference <= 1e-3
    assert bool(verdict.note) is (batching != "PADDED" or grouped)


@pytest.mark.parametrize(
    ("fails", "words"),
    [("alone", "it was not made for this"), ("finite", "not finite"), ("chunks", "processed in parts")],
)
def test_a_model_that_fails_alone_is_refused(fails: str, words: str) -> None:
    """With the reason: an exception, logits that are not finite, an answer that depends on how a prompt is cut."""
    with pytest.raises(Unfit, match=words):
        judged(Attending(fails))


def test_without_time_rows_run_alone() -> None:
    """What was not seen is not claimed."""
    verdict = judged(Sum(honest=True), seconds=0.0)
    assert verdict.batching == "ALONE"
    assert "not tested" in verdict.note


def test_a_slow_network_is_tested_with_shorter_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test takes the time that it may, not more."""
    quick, slow = Sum(honest=True), Sum(honest=True)
    judged(quick)
    monkeypatch.setattr(trial, "measured_rate", lambda _: Rate(0.0, 0.01))
    Trial(slow, VOCAB_SIZE, FLOAT32_TOLERANCE, 2.0).verdict()
    assert (
        Trial(slow, VOCAB_SIZE, FLOAT32_TOLERANCE, 2.0)._size < Trial(slow, VOCAB_SIZE, FLOAT32_TOLERANCE, 60.0)._size
    )


@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [("cpu", "float32", 1e-3), ("metal", "float32", 1e-3), ("cuda", "float32", 0.25), ("metal", "bfloat16", 0.25)],
)
def test_half_precision_may_differ_by_more(backend: str, dtype: str, tolerance: float) -> None:
    """A rounding is no fault. CUDA multiplies float32 in TF32: 98 types differed by up to 0.06 on an H100."""
    assert tolerance_of(backend, dtype) == tolerance


def test_compiling_does_not_use_up_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are compiled on their first use: on an H100 the first test of a process took 15 s of that."""
    network = Sum(honest=True)
    network_call = Sum.__call__
    compiled: set[tuple[int, ...]] = set()

    def call(self: Sum, inputs: mx.array, cache: Sequence[Any]) -> mx.array:
        if inputs.shape not in compiled:
            compiled.add(inputs.shape)
            time.sleep(0.05)
        return network_call(self, inputs, cache)

    monkeypatch.setattr(Sum, "__call__", call)
    assert judged(network, seconds=0.3).batching == "PADDED"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder, and a cache of its own for verdicts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(verdicts, "default_cache_dir", lambda: tmp_path / "cache")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_verdict_is_kept_for_weights_and_device(folder: Path) -> None:
    """The same weights on the same device are not tested twice; others are."""
    found = Verdict("ALIGNED", False, 0.0, 0.1, 0.01, "why")
    Verdicts(folder, "cpu").found(found)
    assert Verdicts(folder, "cpu").known == found
    assert Verdicts(folder, "gpu").known is None
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert Verdicts(folder, "cpu").known is None


def test_a_way_that_ends_the_process_is_not_tried_for_ever(folder: Path) -> None:
    """Two processes died while they tried it. One may have been killed for another reason."""
    way = str(WAYS[0])
    for expected in (False, False, True):
        record = Verdicts(folder, "cpu")
        assert record.was_fatal(way) is expected
        record.trying(way)
    assert not Verdicts(folder, "cpu").was_fatal(ONE_ROW)


def test_old_verdicts_make_room_for_new_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder holds a bounded number of files."""
    monkeypatch.setattr(verdicts, "MOST_KEPT", 3)
    found = Verdict("PADDED", False, 0.0, 0.1, 0.01)
    for number in range(6):
        Verdicts(folder, f"device {number}").found(found)
    assert len(list(Verdicts(folder, "device 5")._path.parent.iterdir())) == 3
    assert Verdicts(folder, "device 5").known == found


def test_a_file_that_cannot_be_read_is_no_verdict(folder: Path) -> None:
    """Then the test runs again."""
    record = Verdicts(folder, "cpu")
    record.trying("anything")
    record._path.write_bytes(b"\xff")
    assert Verdicts(folder, "cpu").known is None


@pytest.mark.parametrize("section", [{}, {"text_config": {}}])
def test_attention_that_chooses_among_blocks_is_known_by_its_config(section: dict[str, Any]) -> None:
    """Blocks are counted from the first place of the cache, padding included; short rows have too few to show that."""
    key = {"index_block_size": 128}
    nested = dict.fromkeys(section, key) or key
    assert chooses_blocks(nested)
    assert not chooses_blocks({"model_type": "llama", "text_config": {"hidden_size": 8}})
