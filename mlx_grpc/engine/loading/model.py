"""Loads a model folder in the child, tests it, and tells what the server must know of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.utils import tree_flatten
from mlx_lm.generate import generation_stream

from mlx_grpc.engine.accel.cpu.attention import use_own_attention
from mlx_grpc.engine.backend import BACKENDS, Backend
from mlx_grpc.engine.batch.pace import Rate
from mlx_grpc.engine.loading.config import attention_heads, chooses_blocks, context_length, eos_ids
from mlx_grpc.engine.loading.memory import device_memory_bytes, limit_memory
from mlx_grpc.engine.loading.network import load_network
from mlx_grpc.engine.loading.shape import Shape, measure
from mlx_grpc.engine.loading.trial import ONE_ROW, Trial, Unfit, Verdict, tolerance_of
from mlx_grpc.engine.loading.verdicts import Verdicts
from mlx_grpc.engine.loading.ways import ALONE, WAYS, Way
from mlx_grpc.engine.messages import Load, Loaded
from mlx_grpc.engine.protocol import LoadError
from mlx_grpc.models.words import one_line

LONGEST_REASON_CHARACTERS = 300
TRIAL_SECONDS = 2.0
TRIAL_SHARE = 0.1
"""The test at load takes no more than the larger of the two: seconds, and part of the time that loading took."""


@dataclass(frozen=True)
class Model:
    """A network that is ready to serve, and what is told about it."""

    network: Module
    loaded: Loaded
    backend: Backend
    attention_heads: int
    grouped_masks: bool
    rate: Rate


def load_model(load: Load, notes: Sequence[str] = ()) -> Model:
    """Load the folder at `load.path`. Raises LoadError with one line for any folder that cannot be served."""
    backend = BACKENDS[backend_name()]
    memory_bytes = device_memory_bytes(on_gpu=backend.name != "cpu")
    if load.memory_limit_bytes > 0:
        memory_bytes = min(memory_bytes, load.memory_limit_bytes)
    limit_memory(memory_bytes)
    began_seconds = time.monotonic()
    try:
        with mx.stream(generation_stream):
            network, config = load_network(Path(load.path), backend.name, trust_remote_code=load.trust_remote_code)
            attention_note = use_own_attention(network) if backend.name == "cpu" else ""
            shape = measure(network)
            ways = [ALONE] if chooses_blocks(config) else WAYS
            verdict = _verdict(load, network, shape, ways, backend.name, time.monotonic() - began_seconds)
    except LoadError:
        raise
    except Unfit as error:
        raise LoadError(f"{load.path} cannot be served: {error}") from error
    except Exception as error:  # a broken folder can break anything in mlx_lm's loading
        raise LoadError(_one_line(load.path, error)) from error
    length, length_notes = context_length(config)
    parameters = dict(tree_flatten(network.parameters()))  # type: ignore[no-untyped-call]
    loaded = Loaded(
        context_length=length,
        vocab_size=shape.vocab_size,
        dtype=shape.dtype,
        weights_bytes=sum(array.nbytes for array in parameters.values()),
        kv_bytes_per_token=shape.kv_bytes_per_token,
        memory_bytes=memory_bytes,
        device=device_name(),
        mlx_version=version("mlx"),
        mlx_lm_version=version("mlx-lm"),
        eos_ids=[token for token in eos_ids(config) if 0 <= token < shape.vocab_size],
        reproducible=backend.name == "cpu" and shape.dtype == "float32",
        notes=[*filter(None, (*notes, attention_note, _batching_note(verdict))), *length_notes],
        backend=backend.name,
        batching=verdict.batching,
        max_rows=1 if verdict.batching == "ALONE" else 0,
    )
    return Model(network, loaded, backend, attention_heads(config), verdict.grouped_masks, verdict.rate)


def backend_name() -> str:
    """Of the device that MLX computes on."""
    if mx.default_device().type != mx.DeviceType.gpu:
        return "cpu"
    return "cuda" if mx.cuda.is_available() else "metal"


def device_name() -> str:
    """As MLX names it."""
    return str(mx.device_info().get("device_name", mx.default_device()))


def _verdict(
    load: Load, network: Module, shape: Shape, ways: Sequence[Way], backend: str, loading_seconds: float
) -> Verdict:
    """What is known of the model, else what a test finds. Raises Unfit."""
    verdicts = Verdicts(Path(load.path), f"{device_name()} {shape.dtype}")
    if verdicts.known is not None:
        return verdicts.known
    if verdicts.was_fatal(ONE_ROW):
        raise Unfit("it ends the process even with one row alone")
    budget_seconds = max(TRIAL_SECONDS, TRIAL_SHARE * loading_seconds)
    tolerance = tolerance_of(backend, shape.dtype)
    trial = Trial(network, shape.vocab_size, tolerance, budget_seconds, verdicts.trying)
    verdict = trial.verdict([way for way in ways if not verdicts.was_fatal(str(way))])
    verdicts.found(verdict)
    return verdict


def _batching_note(verdict: Verdict) -> str:
    """One line for a model whose rows do not share everything."""
    if verdict.batching == "PADDED":
        return ""
    how = "one row at a time" if verdict.batching == "ALONE" else "prompts one at a time, then together"
    why = f"computed together: {verdict.note}" if verdict.note else "its attention chooses among blocks of keys"
    return f"its rows run {how} ({verdict.batching}); {why}"


def _one_line(path: str, error: Exception) -> str:
    text = one_line(str(error), LONGEST_REASON_CHARACTERS) or type(error).__name__
    return f"{path} cannot be loaded: {text}"
