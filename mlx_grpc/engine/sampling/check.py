"""What the sampler refuses. The service has told clients before; this keeps a bad row from harming the batch."""

from __future__ import annotations

import math

from mlx_grpc.engine.messages import Row


def check(row: Row, vocab_size: int) -> None:
    """Raises ValueError, one line that names the setting, for a row that cannot be sampled. Stop ids outside the
    vocabulary are fine: they never come."""
    settings = row.sampling
    for name, value, valid, range_ in (
        ("temperature", settings.temperature, settings.temperature >= 0, "at least 0"),
        ("top_p", settings.top_p, 0 <= settings.top_p <= 1, "from 0 to 1"),
        ("min_p", settings.min_p, 0 <= settings.min_p <= 1, "from 0 to 1"),
        ("top_k", settings.top_k, settings.top_k >= 0, "at least 0"),
        ("repetition_penalty", settings.repetition_penalty, settings.repetition_penalty > 0, "over 0"),
        ("repetition_window", settings.repetition_window, settings.repetition_window > 0, "over 0"),
        ("presence_penalty", settings.presence_penalty, True, "finite"),
        ("frequency_penalty", settings.frequency_penalty, True, "finite"),
    ):
        if not (valid and math.isfinite(value)):
            raise ValueError(f"{name} must be {range_}, not {value}")
    for token, bias in settings.logit_bias.items():
        if not 0 <= token < vocab_size:
            raise ValueError(f"logit_bias names token {token}, and the vocabulary ends at {vocab_size - 1}")
        if not math.isfinite(bias):
            raise ValueError(f"logit_bias of token {token} must be finite, not {bias}")
    if not row.prompt and not row.output:
        raise ValueError("a row needs at least one token of prompt")
    known = row.prompt + row.output
    if min(known) < 0 or max(known) >= vocab_size:
        raise ValueError(f"a token of the prompt is outside the vocabulary, which ends at {vocab_size - 1}")
