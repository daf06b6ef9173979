"""The sampler's filters keep the tokens that mlx_lm's keep, and its draw has the distribution of the weights."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

from mlx_grpc.engine.sampling import filters as sampling_filters
from mlx_grpc.engine.sampling.draw import draw, exp, uniforms
from mlx_grpc.engine.sampling.filters import PAGE_TOKENS, FilterPlan, Filters, kept, weights

VOCAB = 5000
SETTINGS = [
    (0.9, 0.0, 0),
    (0.3, 0.0, 0),
    (0.999, 0.0, 0),
    (1e-6, 0.0, 0),
    (1.0, 0.05, 0),
    (1.0, 1.0, 0),
    (1.0, 0.0, 1),
    (1.0, 0.0, 50),
    (1.0, 0.0, PAGE_TOKENS),
    (1.0, 0.0, PAGE_TOKENS + 1),
    (1.0, 0.0, VOCAB - 1),
    (1.0, 0.0, 0),
    (1.0, 0.0, VOCAB + 7),
    (0.95, 0.01, 0),
    (0.7, 0.0, 5),
    (0.99, 0.0001, 2000),
]


@pytest.fixture(params=["cpu", "gpu"])
def branch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways through the filters, whatever device the tests run on."""
    monkeypatch.setattr(sampling_filters, "on_cpu", lambda: request.param == "cpu")


def shapes() -> dict[str, mx.array]:
    """One row of logits for each kind of distribution that a filter may meet."""
    noise = mx.random.normal((VOCAB,), key=mx.random.key(3))
    return {
        "peaked": noise * 6,
        "broad": noise,
        "flat": mx.zeros((VOCAB,)),
        "ties": mx.round(noise * 2) / 2,
        "bfloat16": (noise * 4).astype(mx.bfloat16).astype(mx.float32),
        "two levels": mx.where(mx.arange(VOCAB) % 3 == 0, 1.0, 0.0),
        "forbidden": mx.where(mx.arange(VOCAB) < VOCAB // 2, -math.inf, noise * 3),
        "far below zero": noise * 3 - 500,
    }


def kept_by_mlx_lm(logits: mx.array, top_p: float, min_p: float, top_k: int) -> np.ndarray:
    """The ids that survive mlx_lm's filters, in its order, as a bool mask."""
    logprobs = (logits - mx.logsumexp(logits))[None]
    if 0 < top_p < 1:
        logprobs = apply_top_p(logprobs, top_p)
    if min_p > 0:
        logprobs = apply_min_p(logprobs, min_p)
    if 0 < top_k < logits.size:
        logprobs = apply_top_k(logprobs, top_k)
    return np.array(logprobs[0] > -math.inf)


def assert_same_scores(logits: mx.array, mine: np.ndarray, setting: tuple[float, float, int]) -> None:
    """Ours are the scores that mlx_lm keeps, equal ones as many times: top-k's border may fall on other ids.

    Where they differ, top-p's border must lie there: the exact sum above the score is top_p, but for what float32
    loses in adding up thousands (in mlx_lm's running sum up to 1e-5 here; ours is held to 2e-6 by the next test)."""
    scores = np.array(logits, dtype=np.float64)
    ours, theirs = scores[mine], scores[kept_by_mlx_lm(logits, *setting)]
    for score in set(ours) ^ set(theirs):
        assert abs(probability_above(scores, score) - setting[0]) < 2e-5, (setting, score)
    common = set(ours) & set(theirs)
    assert sorted(x for x in ours if x in common) == sorted(x for x in theirs if x in common), setting


def probability_above(scores: np.ndarray, score: float) -> float:
    """The exact probability of all tokens that are likelier than `score`."""
    likelihood = np.exp(scores - scores.max())
    return float(likelihood[scores > score].sum() / likelihood.sum())


def kept_in_batch(logits: mx.array, settings: list[tuple[float, float, int]]) -> np.ndarray:
    """What ours keeps, one row for each setting, all rows in one call."""
    top_p, min_p, top_k = (list(column) for column in zip(*settings, strict=True))
    plan = FilterPlan(Filters(top_p, min_p, top_k), logits.shape[-1])
    best = logits.max(-1, keepdims=True)
    return np.array(kept(logits, best, exp(logits - best), plan) & (logits > -math.inf))


@pytest.mark.parametrize("shape", shapes())
def test_rows_with_different_settings_keep_what_mlx_lm_keeps(shape: str, branch: None) -> None:
    """Sixteen settings in one call each keep exactly the scores that mlx_lm keeps for that setting."""
    logits = shapes()[shape]
    ours = kept_in_batch(mx.stack([logits] * len(SETTINGS)), SETTINGS)
    for mine, setting in zip(ours, SETTINGS, strict=True):
        assert_same_scores(logits, mine, setting)


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.5, 0.9, 0.99, 0.999, 0.9999])
def test_the_nucleus_is_the_exact_one(top_p: float, branch: None) -> None:
    """Every kept token has less than top_p above it and every dropped one at least that, to within 2e-6, computed in
    float64."""
    logits = mx.stack(list(shapes().values()))
    for row, mine in zip(logits, kept_in_batch(logits, [(top_p, 0.0, 0)] * len(logits)), strict=True):
        scores = np.array(row, dtype=np.float64)
        assert probability_above(scores, scores[mine].min()) < top_p + 2e-6
        dropped = scores[~mine & np.isfinite(scores)]
        assert not dropped.size or probability_above(scores, dropped.max()) > top_p - 2e-6


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_alone_keeps_what_mlx_lm_keeps(setting: tuple[float, float, int], branch: None) -> None:
    """The same for one setting on all kinds of rows, where other short cuts apply."""
    logits = mx.stack(list(shapes().values()))
    for row, mine in zip(logits, kept_in_batch(logits, [setting] * len(logits)), strict=True):
        assert_same_scores(row, mine, setting)


def test_top_k_keeps_the_lowest_ids_of_equal_scores() -> None:
    """With every score equal, top_k keeps exactly k tokens: the first."""
    (mine,) = kept_in_batch(mx.zeros((1, VOCAB)), [(1.0, 0.0, 3)])
    assert np.flatnonzero(mine).tolist() == [0, 1, 2]


@pytest.mark.parametrize("rows", [1, 2, 16])
def test_weights_of_a_row_do_not_depend_on_its_company(rows: int) -> None:
    """A row's weights have the same bits alone and in a batch."""
    logits = mx.random.normal((rows, VOCAB), key=mx.random.key(5)) * 4
    plan = FilterPlan(Filters([0.9] * rows, [0.0] * rows, [0] * rows), VOCAB)
    cool = mx.full((rows, 1), 1 / 0.7)
    together = weights(logits, logits.max(-1, keepdims=True), cool, plan)
    single = FilterPlan(Filters([0.9], [0.0], [0]), VOCAB)
    for i in range(rows):
        row = logits[i : i + 1]
        alone = weights(row, row.max(-1, keepdims=True), cool[:1], single)
        assert mx.array_equal(alone, together[i : i + 1])


def test_exp_is_close_and_ends_in_zero() -> None:
    """The quick exponential is within 4e-6 of numpy's, 1 at 0, 0 far below, and keeps NaN."""
    x = np.linspace(-87, 0, 100_001, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(np.array(exp(mx.array(x))) / exact - 1)) < 4e-6
    edge = np.array(exp(mx.array([0.0, -200.0, -math.inf, math.nan])))
    assert edge[:3].tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(edge[3])


def test_uniforms_differ_by_seed_and_position_and_fill_the_interval() -> None:
    """Uniforms are fixed by (seed, position), lie in [0, 1), and their sixteenths are evenly filled."""
    assert uniforms(1, 2) == uniforms(1, 2)
    assert len({uniforms(seed, position) for seed in range(20) for position in range(20)}) == 400
    values = np.array([uniforms(seed, position) for seed in range(40) for position in range(100)])
    assert values.min() >= 0
    assert values.max() < 1
    for column in values.T:
        counts = np.histogram(column, bins=16, range=(0, 1))[0]
        assert ((counts - 250) ** 2 / 250).sum() < 37.7  # chi-square, 15 degrees, 0.001


@pytest.mark.parametrize("vocab", [2, 127, 128, 129, 1000])
def test_draw_reaches_both_ends_and_never_a_zero_weight(vocab: int) -> None:
    """Uniforms at both ends of [0, 1) give the first and the last token that have weight."""
    weight = mx.ones((2, vocab)) * mx.where(mx.arange(vocab) % 2 == 1, 1.0, 0.0)
    ends = mx.array([[0.0, 0.0], [1 - 2.0**-24, 1 - 2.0**-24]])
    first, last = np.array(draw(weight, ends))
    assert (first, last) == (1, vocab - 1 if vocab % 2 == 0 else vocab - 2)
