"""From a model folder to a network in memory.

On a CPU quantised weights are unpacked and every floating weight becomes float32: half precision and packed weights are
slower there by an order of magnitude. On a GPU the model keeps its own type. The tokenizer is never loaded: text is the
server's business.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.utils
from mlx.nn.layers.base import Module

from mlx_grpc.engine.accel.cuda.fused_llama import fused
from mlx_grpc.engine.loading.text_part import load_text_part, text_section
from mlx_grpc.engine.protocol import LoadError
from mlx_grpc.models.folder import read_model
from mlx_grpc.models.own_code import own_code
from mlx_grpc.models.sources import ModelSourceError


def load_network(folder: Path, backend: str, *, trust_remote_code: bool) -> tuple[Module, dict[str, Any]]:
    """The network, its weights read, and its configuration. Raises LoadError for a folder that cannot be one's, or asks
    for code that is not trusted, and whatever mlx_lm raises for a broken one."""
    try:
        read_model(folder)  # nothing is built from numbers that were not looked at
        code = "" if trust_remote_code else own_code(folder)
    except ModelSourceError as error:
        raise LoadError(str(error)) from error
    if code:
        raise LoadError(f"{folder} asks for code of its own ({code}); --trust-remote-code lets the engine run it")
    network, config = _read(folder, trust_remote_code)
    if backend == "cpu":
        network = mlx_lm.utils.dequantize_model(network)
        network.set_dtype(mx.float32)
    mx.eval(network.parameters())  # type: ignore[no-untyped-call]
    return fused(network) if backend == "cuda" else network, config


def _read(folder: Path, trust_remote_code: bool) -> tuple[Module, dict[str, Any]]:
    """By mlx_lm's own loading; where that fails, the text part alone of a model that has one."""
    try:
        loaded: tuple[Module, dict[str, Any]] = mlx_lm.utils.load_model(
            folder, lazy=True, trust_remote_code=trust_remote_code
        )
        return loaded
    except Exception as error:
        config = mlx_lm.utils.load_config(folder)
        section = text_section(config)
        if section is None:
            raise
        try:
            return load_text_part(folder, config, section)
        except Exception as second:
            raise error from second
