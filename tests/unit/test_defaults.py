"""What a request left open: the model's recommendation, then the project's default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.errors import InvalidField, PromptTooLong
from mlx_grpc.request import Sampling, Stop
from mlx_grpc.service.intake.defaults import (
    SamplingDefaults,
    read_sampling_defaults,
    resolve_max_tokens,
    resolve_sampling,
)

NEUTRAL = SamplingDefaults()


def written(folder: Path, config: Any) -> SamplingDefaults:
    (folder / "generation_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return read_sampling_defaults(folder)


def test_a_model_that_recommends_nothing_is_greedy(tmp_path: Path) -> None:
    """No file, and files without `do_sample`, which is what Hugging Face takes them to mean."""
    assert read_sampling_defaults(tmp_path) == NEUTRAL
    assert written(tmp_path, {"temperature": 0.6, "top_p": 0.9}) == NEUTRAL
    assert written(tmp_path, {"do_sample": False, "temperature": 0.6}) == NEUTRAL


def test_a_models_recommendation_is_taken(tmp_path: Path) -> None:
    """All five settings; a repetition penalty also where the model is greedy."""
    whole = {
        "do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1,
    }  # fmt: skip
    assert written(tmp_path, whole) == SamplingDefaults(0.6, 0.9, 40, 0.05, 1.1)
    assert written(tmp_path, {"repetition_penalty": 1.1}) == SamplingDefaults(repetition_penalty=1.1)


@pytest.mark.parametrize("config", ["not json", "[]", "null", '{"do_sample": true, "temperature": "hot", "top_p": 7}'])
def test_nonsense_is_passed_over(config: str, tmp_path: Path) -> None:
    """A value that no request may send is no default either."""
    found = written(tmp_path, config)
    assert (found.top_p, found.top_k) == (1.0, 0)


def test_what_was_sent_wins() -> None:
    """Also where it is 0."""
    defaults = SamplingDefaults(0.6, 0.9, 40, 0.05, 1.1)
    params = resolve_sampling(Sampling(temperature=0.0, top_k=0, seed=5), defaults, 100)
    assert (params.temperature, params.top_k, params.seed) == (0.0, 0, 5)
    assert (params.top_p, params.min_p, params.repetition_penalty, params.repetition_window) == (0.9, 0.05, 1.1, 20)


def test_a_recommended_top_k_above_the_vocabulary_keeps_all() -> None:
    """It is the model's mistake, not the caller's."""
    assert resolve_sampling(Sampling(), SamplingDefaults(top_k=100), 100).top_k == 0


def test_drawn_seeds_differ_and_pass_through_json() -> None:
    """Below 2^53."""
    seeds = {resolve_sampling(Sampling(), NEUTRAL, 100).seed for _ in range(100)}
    assert len(seeds) == 100
    assert max(seeds) < 2**53


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 300) | st.none(), st.integers(0, 300) | st.none())
def test_max_tokens_fits_the_room(prompt: int, context: int, wanted: int | None, least: int | None) -> None:
    """Never more than the context has left, never fewer than min_tokens; else an error that says which."""
    stop, room = Stop(max_tokens=wanted, min_tokens=least), context - prompt
    if room < 1:
        with pytest.raises(PromptTooLong) as too_long:
            resolve_max_tokens(stop, prompt, context, 50)
        assert too_long.value.metadata == {"prompt_tokens": str(prompt), "context_length": str(context)}
    elif (least or 0) > min(room, wanted or room):
        with pytest.raises(InvalidField, match="min_tokens") as wrong:
            resolve_max_tokens(stop, prompt, context, 50)
        assert wrong.value.field == "stop.min_tokens"
    else:
        found = resolve_max_tokens(stop, prompt, context, 50)
        assert (least or 1) <= found <= room
        assert wanted is None or found <= wanted
