"""A tiny model as a folder that any server can load: config.json, random weights, a tokenizer."""

from __future__ import annotations

import json
import math
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes

from tests.helpers.llama import EOS, make_tokenizer, write_tokenizer
from tests.helpers.models.base import CONTEXT_LENGTH, Config
from tests.helpers.models.catalog import MODELS

WEIGHTS_SEED = 7
EMBEDDING_SCALE, MATRIX_SCALE, NOISE = 0.1, 1.6, 0.1
"""So that attention decides more than the last token does, and the two likeliest tokens are seldom close: a greedy row
has one right answer, whatever the rounding."""


def write_model(name: str, folder: Path) -> Path:
    """Write the model of that name (`catalog.MODELS`) into `folder`, and return that. Weights are float32 and the same
    every time."""
    return write_folder(MODELS[name], folder)


def write_folder(config: Config, folder: Path) -> Path:
    """The same of any config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    settings = {**config, "eos_token_id": tokenizer.token_to_id(EOS)}
    mx.save_safetensors(str(folder / "model.safetensors"), _weights(json.dumps(settings)), {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(settings))
    greedy = {"do_sample": False, "eos_token_id": settings["eos_token_id"]}
    (folder / "generation_config.json").write_text(json.dumps(greedy))
    write_tokenizer(folder, tokenizer, CONTEXT_LENGTH)
    return folder


def _weights(settings: str) -> dict[str, mx.array]:
    """The config comes as text: some types change what they are given."""
    model_class, arguments_class = _get_classes(json.loads(settings))
    model = model_class(arguments_class.from_dict(json.loads(settings)))
    parameters: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    keys = mx.random.split(mx.random.key(WEIGHTS_SEED), len(parameters))
    return {name: _random(name, array, key) for key, (name, array) in zip(keys, parameters.items(), strict=True)}


def _random(name: str, array: mx.array, key: mx.array) -> mx.array:
    """Matrices are drawn anew. Vectors (norms, biases, decays) keep the value that the type gives them, with noise."""
    if array.dtype == mx.uint32:  # packed weights
        return mx.random.randint(0, 1 << 31, array.shape, mx.int32, key=key).astype(mx.uint32)
    if not mx.issubdtype(array.dtype, mx.floating):
        return array
    noise = mx.random.normal(array.shape, key=key)
    if array.ndim < 2 or "A_log" in name or "dt" in name.rpartition(".")[2]:
        return array.astype(mx.float32) + NOISE * noise
    if ("embed" in name or "wte" in name) and "embed_out" not in name:
        return EMBEDDING_SCALE * noise
    inputs = array.shape[-1] if array.ndim < 4 else 4
    return MATRIX_SCALE / math.sqrt(inputs) * noise
