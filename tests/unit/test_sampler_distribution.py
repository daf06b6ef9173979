"""Chi-square tests: what is drawn has mlx_lm's distribution for each setting, in rows that all differ.

Seeds are fixed, so a test that passes once passes always.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, make_sampler

from mlx_grpc.engine.messages import Row, SamplingParams
from mlx_grpc.engine.sampling.sampler import BatchSampler

VOCAB = 2500
DRAWS = 4000
ROWS_A_CALL = 200
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.6},
    {"temperature": 2.0, "top_k": 12},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.3, "top_p": 0.6},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 0.8, "min_p": 0.05, "top_p": 0.9, "top_k": 15},
    {"temperature": 1.0, "top_p": 0.95, "top_k": 2000},
]
# The 0.9999 quantile of chi-square by Wilson and Hilferty's approximation.
QUANTILE_Z = 3.719


def logits() -> mx.array:
    """A peaked distribution with a long tail."""
    return mx.random.normal((VOCAB,), key=mx.random.key(21)) * 2.5


def probabilities(setting: dict[str, Any]) -> np.ndarray:
    """What mlx_lm's filters and temperature make of the logits."""
    logprobs = (logits() - mx.logsumexp(logits()))[None]
    if setting.get("top_p", 1.0) < 1:
        logprobs = apply_top_p(logprobs, setting["top_p"])
    if setting.get("min_p"):
        logprobs = apply_min_p(logprobs, setting["min_p"])
    if setting.get("top_k"):
        logprobs = apply_top_k(logprobs, setting["top_k"])
    return np.array(mx.softmax(logprobs[0] / setting["temperature"])).astype(np.float64)


def is_sample_of(tokens: np.ndarray, expected: np.ndarray) -> bool:
    """Pearson's test of `tokens` against probabilities, the rare tokens (under 8 expected) together as one."""
    counts = np.bincount(tokens, minlength=VOCAB)
    assert counts[expected == 0].sum() == 0, "a token that the filters forbid was drawn"
    often = expected * len(tokens) >= 8
    observed = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum()) * len(tokens)
    cells = wanted > 1e-3
    statistic = ((observed - wanted)[cells] ** 2 / wanted[cells]).sum()
    degrees = max(1, cells.sum() - 1)
    limit = degrees * (1 - 2 / (9 * degrees) + QUANTILE_Z * np.sqrt(2 / (9 * degrees))) ** 3
    return bool(statistic < limit)


def draws(setting_of_row: list[dict[str, Any]]) -> np.ndarray:
    """[rows, draws a row]: tokens at successive positions of seeded rows that run together."""
    sampler = BatchSampler(VOCAB)
    rows = range(len(setting_of_row))
    for i in rows:
        sampling = SamplingParams(seed=1000 + i, **setting_of_row[i])
        sampler.add(Row(i, [1], [], 10, 0, [], sampling))
    batch = mx.broadcast_to(logits(), (len(rows), VOCAB))
    inputs = mx.zeros((len(rows),), dtype=mx.uint32)
    steps = DRAWS // ROWS_A_CALL
    return np.array(mx.stack([sampler.sample(batch, list(rows), inputs).tokens for _ in range(steps)], axis=1))


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_draws_from_mlx_lms_distribution(setting: dict[str, Any]) -> None:
    """4,000 draws over 200 seeds and 20 positions fit the probabilities that mlx_lm's filters leave."""
    assert is_sample_of(draws([setting] * ROWS_A_CALL).ravel(), probabilities(setting))


def test_rows_with_different_settings_each_draw_from_their_own() -> None:
    """Rows of all settings interleaved in one batch: each setting's draws fit its own distribution."""
    mixed = draws([SETTINGS[i % len(SETTINGS)] for i in range(ROWS_A_CALL * 2)])
    for i, setting in enumerate(SETTINGS):
        assert is_sample_of(mixed[i :: len(SETTINGS)].ravel(), probabilities(setting)), setting


@pytest.mark.parametrize("setting", SETTINGS)
def test_mlx_lms_own_sampler_passes_the_same_test(setting: dict[str, Any]) -> None:
    """The test's probabilities are right: draws from mlx_lm's make_sampler fit them too."""
    arguments = {"temp" if name == "temperature" else name: value for name, value in setting.items()}
    mx.random.seed(77)
    logprobs = mx.broadcast_to(logits() - mx.logsumexp(logits()), (DRAWS, VOCAB))
    tokens = np.array(make_sampler(**arguments)(logprobs))
    assert is_sample_of(tokens, probabilities(setting))


def test_the_test_notices_a_wrong_temperature() -> None:
    """Draws at temperature 0.9 do not pass for draws at 1."""
    assert not is_sample_of(draws([{"temperature": 0.9}] * ROWS_A_CALL).ravel(), probabilities({"temperature": 1.0}))
