"""A real model that is slow: a tiny Llama whose forward pass sleeps for each token."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.llama import make_llama

CODE = """
import time

import mlx.core as mx
from mlx_lm.models import llama

ModelArgs = llama.ModelArgs


class Model(llama.Model):
    def __call__(self, inputs, cache=None):
        time.sleep({seconds_per_token} * inputs.size)
        return super().__call__(inputs, cache=cache)
"""


def make_slow_model(folder: Path, seconds_per_token: float, context_length: int) -> Path:
    """Write it into `folder`, and return that. It needs `trust_remote_code`: its sleep is code of its own."""
    make_llama(folder, max_position_embeddings=context_length, model_file="slow.py")
    (folder / "slow.py").write_text(CODE.format(seconds_per_token=seconds_per_token))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": context_length}))
    return folder
