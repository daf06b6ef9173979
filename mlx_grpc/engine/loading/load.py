"""Loads a model folder in the child, and measures what the server must know of it.

On a CPU quantised weights are unpacked and every floating weight becomes float32: half precision and packed
weights are slower there by an order of magnitude. On a GPU the model keeps its own type. The tokenizer is
never loaded: text is the server's business.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.utils
from mlx.nn.layers.base import Module
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from mlx_grpc.engine.accel.cpu.attention import use_own_attention
from mlx_grpc.engine.accel.cuda.fused_llama import fused
from mlx_grpc.engine.loading.memory import device_memory_bytes, limit_memory
from mlx_grpc.engine.messages import Load, Loaded
from mlx_grpc.engine.protocol import LoadError

CONTEXT_KEYS = (
    "max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "model_max_length",
    "seq_length", "n_ctx",
)  # fmt: skip
DEFAULT_CONTEXT_LENGTH = 4096
DEFAULT_ATTENTION_HEADS = 32
LONGEST_REASON_CHARACTERS = 300

# A recurrent layer's state has one size for any length; it is charged to the tokens of a row of this many.
STATE_TOKENS = 1024


@dataclass(frozen=True)
class Model:
    """A network that is ready to serve, and what is told about it."""

    network: Module
    loaded: Loaded
    on_gpu: bool
    attention_heads: int


def load_model(load: Load, notes: Sequence[str] = ()) -> Model:
    """Load the folder at `load.path`. Raises LoadError with one line for any folder that cannot be served."""
    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    memory_bytes = device_memory_bytes(on_gpu)
    if load.memory_limit_bytes > 0:
        memory_bytes = min(memory_bytes, load.memory_limit_bytes)
    limit_memory(memory_bytes)
    try:
        network, config = _load_network(load, on_gpu)
        attention_note = "" if on_gpu else use_own_attention(network)
        shape = _measure(network)
    except LoadError:
        raise
    except Exception as error:  # a broken folder can break anything in mlx_lm's loading
        raise LoadError(_one_line(load.path, error)) from error
    context_length, more_notes = _context_length(config)
    parameters = dict(tree_flatten(network.parameters()))  # type: ignore[no-untyped-call]
    loaded = Loaded(
        context_length=context_length,
        vocab_size=shape.vocab_size,
        dtype=shape.dtype,
        weights_bytes=sum(array.nbytes for array in parameters.values()),
        kv_bytes_per_token=shape.kv_bytes_per_token,
        memory_bytes=memory_bytes,
        device=str(mx.device_info().get("device_name", mx.default_device())),
        mlx_version=version("mlx"),
        mlx_lm_version=version("mlx-lm"),
        eos_ids=_eos_ids(config),
        reproducible=not on_gpu and shape.dtype == "float32",
        notes=[*filter(None, (*notes, attention_note)), *more_notes],
        backend="gpu" if on_gpu else "cpu",
    )
    return Model(network, loaded, on_gpu, _attention_heads(config))


def _load_network(load: Load, on_gpu: bool) -> tuple[Module, dict[str, Any]]:
    folder = Path(load.path)
    if not (folder / "config.json").is_file():
        raise LoadError(f"{folder} is no model folder: it has no config.json")
    if not any(folder.glob("model*.safetensors")):
        raise LoadError(f"{folder} has no weights: no file matches model*.safetensors")
    network, config = mlx_lm.utils.load_model(folder, lazy=True, trust_remote_code=load.trust_remote_code)
    if not on_gpu:
        network = mlx_lm.utils.dequantize_model(network)
        network.set_dtype(mx.float32)
    mx.eval(network.parameters())
    return fused(network) if on_gpu and mx.cuda.is_available() else network, config


@dataclass(frozen=True)
class _Shape:
    vocab_size: int
    dtype: str
    kv_bytes_per_token: int


def _measure(network: Module) -> _Shape:
    """Run one token through the network, and look at its logits and cache."""
    cache = make_prompt_cache(network)
    if kinds := sorted({type(part).__name__ for part in _parts(cache) if not hasattr(part, "merge")}):
        raise LoadError(f"the model's KV cache cannot be batched: it uses {', '.join(kinds)}")
    logits = network(mx.zeros((1, 1), dtype=mx.int32), cache=cache)
    mx.eval(logits, [part.state for part in cache])
    bytes_per_token = math.ceil(sum(_bytes_per_token(part) for part in _parts(cache)))
    return _Shape(logits.shape[-1], str(logits.dtype).removeprefix("mlx.core."), bytes_per_token)


def _parts(caches: Sequence[Any]) -> list[Any]:
    """A model's caches, those inside of lists of caches too."""
    parts: list[Any] = []
    for cache in caches:
        parts += _parts(cache.caches) if hasattr(cache, "caches") else [cache]
    return parts


def _bytes_per_token(cache: Any) -> float:
    """What a token takes in this cache. Keys and values hold [batch, heads, length, size], allocated in
    steps; a window that rotates is charged as if it grew, which is right up to its size."""
    keys = getattr(cache, "keys", None)
    if keys is not None:
        return float((keys.nbytes + cache.values.nbytes) / keys.shape[2])
    return float(cache.nbytes / STATE_TOKENS)


def _context_length(config: Mapping[str, Any]) -> tuple[int, list[str]]:
    for section in _sections(config):
        for key in CONTEXT_KEYS:
            if isinstance(length := section.get(key), int) and length > 0:
                return length, []
    return DEFAULT_CONTEXT_LENGTH, [f"config.json names no context length: {DEFAULT_CONTEXT_LENGTH} is taken"]


def _eos_ids(config: Mapping[str, Any]) -> list[int]:
    for section in _sections(config):
        ids = section.get("eos_token_id")
        if ids is not None:
            return [ids] if isinstance(ids, int) else [int(token) for token in ids]
    return []


def _attention_heads(config: Mapping[str, Any]) -> int:
    found = [section.get("num_attention_heads") for section in _sections(config)]
    return max((heads for heads in found if isinstance(heads, int)), default=DEFAULT_ATTENTION_HEADS)


def _sections(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The config, and the part for text that models with eyes or ears nest in it."""
    text = config.get("text_config")
    return [config, text] if isinstance(text, Mapping) else [config]


def _one_line(path: str, error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{path}: config.json is not valid JSON: {error}"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{path} cannot be loaded: {text[:LONGEST_REASON_CHARACTERS]}"
