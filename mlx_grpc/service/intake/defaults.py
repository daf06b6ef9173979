"""Fills in what a request left open: the model's own generation_config, then the project's defaults."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpc.engine.messages import SamplingParams
from mlx_grpc.errors import InvalidField
from mlx_grpc.models.json_file import read_object
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.request import Sampling, Stop
from mlx_grpc.service.intake.validate import check_room

SEED_BITS = 53
"""A drawn seed passes through JSON and JavaScript unharmed."""


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What the model's authors recommend; neutral where they say nothing."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def read_sampling_defaults(folder: Path) -> SamplingDefaults:
    """The sampling of `generation_config.json`. Without one, or with `do_sample` off, greedy: the meaning that
    Hugging Face gives the file. Values that no request may send are passed over."""
    try:
        config = read_object(folder / "generation_config.json")
    except (OSError, ModelSourceError):
        return SamplingDefaults()
    repetition_penalty = _number(config, "repetition_penalty", 1.0, 0.01, 100)
    if not config.get("do_sample"):
        return SamplingDefaults(repetition_penalty=repetition_penalty)
    return SamplingDefaults(
        temperature=_number(config, "temperature", 1.0, 0, 100),
        top_p=_number(config, "top_p", 1.0, 1e-6, 1),
        top_k=int(_number(config, "top_k", 0, 0, 2**31 - 1)),
        min_p=_number(config, "min_p", 0.0, 0, 1),
        repetition_penalty=repetition_penalty,
    )


def resolve_sampling(sampling: Sampling, defaults: SamplingDefaults, vocab_size: int) -> SamplingParams:
    """The complete settings of one row; draws a seed where none was sent."""
    top_k = defaults.top_k if sampling.top_k is None else sampling.top_k
    return SamplingParams(
        temperature=_first(sampling.temperature, defaults.temperature),
        top_p=_first(sampling.top_p, defaults.top_p),
        top_k=top_k if top_k < vocab_size else 0,
        min_p=_first(sampling.min_p, defaults.min_p),
        repetition_penalty=_first(sampling.repetition_penalty, defaults.repetition_penalty),
        repetition_window=20 if sampling.repetition_window is None else sampling.repetition_window,
        presence_penalty=_first(sampling.presence_penalty, 0.0),
        frequency_penalty=_first(sampling.frequency_penalty, 0.0),
        logit_bias=dict(sampling.logit_bias),
        seed=secrets.randbits(SEED_BITS) if sampling.seed is None else sampling.seed,
    )


def resolve_max_tokens(stop: Stop, prompt_tokens: int, context_length: int, default_max_tokens: int) -> int:
    """How many tokens may come, cut to the room that the prompt leaves.

    Raises PromptTooLong when it leaves none, and InvalidField when min_tokens asks for more than there can be.
    """
    room = check_room(prompt_tokens, context_length)
    wanted = default_max_tokens if stop.max_tokens is None else stop.max_tokens
    if stop.max_tokens is None and stop.min_tokens:
        wanted = max(wanted, stop.min_tokens)
    max_tokens = min(wanted, room)
    if stop.min_tokens and stop.min_tokens > max_tokens:
        raise InvalidField(
            f"min_tokens is {stop.min_tokens}, and the context has room for {max_tokens}", field="stop.min_tokens"
        )
    return max_tokens


def _first(sent: float | None, default: float) -> float:
    return default if sent is None else sent


def _number(config: Mapping[str, Any], name: str, default: float, lowest: float, highest: float) -> float:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not lowest <= value <= highest:
        return default
    return value
