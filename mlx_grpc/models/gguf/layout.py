"""Which tensor of a GGUF file becomes which weight of an MLX model, and in what form: decided before any is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlx_grpc.models.gguf.families import EMBEDDING, INSTEAD, OUTPUT, OUTPUT_NORM, Family, Place, family_of
from mlx_grpc.models.gguf.header import GgufHeader, TensorInfo
from mlx_grpc.models.gguf.rope import ROPE_TENSORS
from mlx_grpc.models.gguf.tensor_types import GROUP_SIZE
from mlx_grpc.models.sources import ModelSourceError

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the file. `layer` is MLX's name up to the last dot; `kind` is weight or bias.

    interleaved_heads: how many heads llama.cpp has interleaved the rows of; 0 where it left them in order.
    plus: what llama.cpp has added to all values.
    """

    source: TensorInfo
    layer: str
    kind: str
    interleaved_heads: int = 0
    plus: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.layer}.{self.kind}"


@dataclass(frozen=True, slots=True)
class PlannedArray:
    """One array of the safetensors file; `dtype` in MLX's words."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """All weights. `dtype` is that of scales, biases and what is not quantised, and so of the model's arithmetic.

    Quantised models are float16, because that is what GGUF's own scales are. Those of Q4_0 to Q8_0 are kept exactly;
    those of Q4_K and Q5_K are products of a float16 and 6 bits, and rounding these moves a weight by at most 0.15 % of
    its group's largest one (0.07 % as a rule). bfloat16 would move it by eight times as much; float32 not at all, but
    each product with float32 scales gives float32, so activations, KV and all arithmetic on a GPU would double. A
    family whose activations leave float16's range has bfloat16 all the same.
    """

    tensors: list[PlannedTensor]
    dtype: str

    def arrays(self) -> Iterator[PlannedArray]:
        """What the file of weights will hold."""
        for tensor in self.tensors:
            shape, bits = tensor.source.shape, tensor.source.type.kept_bits
            if bits is None:
                yield PlannedArray(tensor.name, self.dtype, shape)
            else:
                yield PlannedArray(tensor.name, "uint32", (shape[0], shape[1] * bits // 32))
                for part in ("scales", "biases"):
                    yield PlannedArray(f"{tensor.layer}.{part}", self.dtype, (shape[0], shape[1] // GROUP_SIZE))

    def quantization(self) -> dict[str, Any]:
        """The entry of config.json: the commonest width for all layers, and by name those that differ."""
        widths = {tensor.layer: bits for tensor in self.tensors if (bits := tensor.source.type.kept_bits) is not None}
        if not widths:
            return {}
        common = Counter(widths.values()).most_common(1)[0][0]
        others = {layer: {"group_size": GROUP_SIZE, "bits": bits} for layer, bits in widths.items() if bits != common}
        return {"quantization": {"group_size": GROUP_SIZE, "bits": common, **others}}


def plan_weights(header: GgufHeader, config: dict[str, Any]) -> WeightPlan:
    """Gives each tensor its place in the model of `config`.

    Raises ModelSourceError with the tensor's name for one that is missing, has another shape than the model wants, is
    quantised where it may not be, or is in no plain model of the family.
    """
    family = family_of(header)
    # A file of n tensors lacks some of layer n: so metadata that claim millions of layers cost nothing.
    wanted = dict(_wanted(family, config, layers=min(config["num_hidden_layers"], len(header.tensors))))
    no_weights = {name for kind in family.rope_scalings for name in ROPE_TENSORS.get(kind, ())}
    for name in header.tensors:
        if name not in wanted and name not in no_weights:
            raise ModelSourceError(f"{header.path}: tensor {name!r} is in no plain {family.name}; {INSTEAD}")
    of = sizes(config)
    planned = []
    for name, (mlx_name, place) in wanted.items():
        if (tensor := header.tensors.get(name)) is None:
            raise ModelSourceError(f"{header.path}: no tensor {name}; give a whole model in one .gguf file")
        if tensor.shape != (shape := tuple(of[size] for size in place.shape)):
            raise ModelSourceError(
                f"{header.path}: tensor {name!r} has the shape {tensor.shape}, and its metadata want {shape}; "
                "convert the model again"
            )
        if len(shape) == 1 and tensor.type.kept_bits is not None:
            raise ModelSourceError(f"{header.path}: tensor {name!r} is one row of type {tensor.type.name}; {INSTEAD}")
        layer, _, kind = mlx_name.rpartition(".")
        heads = config[place.heads] if place.heads else 0
        planned.append(PlannedTensor(tensor, layer, kind, heads, family.norms_plus if place.is_norm else 0.0))
    return WeightPlan(planned, _dtype(planned, family.half))


def sizes(config: dict[str, Any]) -> dict[str, int]:
    """The sizes that the families' tables name."""
    heads, kv_heads, head = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    return {
        "vocab": config["vocab_size"],
        "hidden": config["hidden_size"],
        "wide": config["intermediate_size"],
        "gate_up": 2 * config["intermediate_size"],
        "head": head,
        "queries": heads * head,
        "keys": kv_heads * head,
        "queries_keys_values": (heads + 2 * kv_heads) * head,
    }


def _dtype(tensors: list[PlannedTensor], half: str) -> str:
    """The family's half precision where anything is quantised, else the type of most weights. Norms do not count: GGUF
    has them in float32 always, and beside half precision they would raise all arithmetic on a GPU to float32."""
    weights: Counter[str] = Counter()
    for matrix in (tensor.source for tensor in tensors if len(tensor.source.shape) > 1):
        if matrix.type.kept_bits is not None:
            return half
        weights[_DTYPES[matrix.type.name]] += math.prod(matrix.shape)
    dtype = weights.most_common(1)[0][0]
    return half if dtype == "float16" else dtype


def _wanted(family: Family, config: dict[str, Any], layers: int) -> Iterator[tuple[str, tuple[str, Place]]]:
    """GGUF's names of this model's tensors; for each MLX's name and its row of the table."""
    whole = (EMBEDDING, OUTPUT_NORM) if config["tie_word_embeddings"] else (EMBEDDING, OUTPUT_NORM, OUTPUT)
    yield from ((place.gguf, (place.mlx, place)) for place in whole)
    places = [place for place in family.places if not place.where or config[place.where]]
    for block in range(layers):
        for place in places:
            yield f"blk.{block}.{place.gguf}", (f"model.layers.{block}.{place.mlx}", place)
