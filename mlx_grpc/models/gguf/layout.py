"""Which tensor of a GGUF file becomes which weight of an MLX Llama, and in what form: decided before any is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlx_grpc.models.gguf.header import GgufHeader, TensorInfo
from mlx_grpc.models.gguf.rope import ROPE_FACTORS
from mlx_grpc.models.gguf.tensor_types import GROUP_SIZE
from mlx_grpc.models.sources import ModelSourceError

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_INSTEAD = "use an MLX version of the model instead"

_Place = tuple[str, tuple[int, ...], int]


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the file. `layer` is MLX's name up to the last dot; `kind` is weight or bias.

    interleaved_heads: how many heads llama.cpp has interleaved the rows of; 0 where it left them in order.
    """

    source: TensorInfo
    layer: str
    kind: str
    interleaved_heads: int = 0

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
    each product with float32 scales gives float32, so activations, KV and all arithmetic on a GPU would double.
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
    quantised where it may not be, or is in no plain Llama.
    """
    # A file of n tensors lacks some of layer n: so metadata that claim millions of layers cost nothing.
    wanted = dict(_wanted(config, layers=min(config["num_hidden_layers"], len(header.tensors))))
    for name in header.tensors:
        if name not in wanted and name != ROPE_FACTORS:
            raise ModelSourceError(f"{header.path}: tensor {name!r} is in no plain Llama; {_INSTEAD}")
    planned = []
    for name, (layer, shape, heads) in wanted.items():
        if (tensor := header.tensors.get(name)) is None:
            raise ModelSourceError(f"{header.path}: no tensor {name}; give a whole model in one .gguf file")
        if tensor.shape != shape:
            raise ModelSourceError(
                f"{header.path}: tensor {name!r} has the shape {tensor.shape}, and its metadata want {shape}; "
                "convert the model again"
            )
        if len(shape) == 1 and tensor.type.kept_bits is not None:
            raise ModelSourceError(f"{header.path}: tensor {name!r} is one row of type {tensor.type.name}; {_INSTEAD}")
        planned.append(PlannedTensor(tensor, layer, name.rpartition(".")[2], heads))
    return WeightPlan(planned, _dtype(planned))


def _dtype(tensors: list[PlannedTensor]) -> str:
    """float16 where anything is quantised, else the type of most weights. Norms do not count: GGUF has them in
    float32 always, and beside half precision they would raise all arithmetic on a GPU to float32."""
    weights: Counter[str] = Counter()
    for matrix in (tensor.source for tensor in tensors if len(tensor.source.shape) > 1):
        if matrix.type.kept_bits is not None:
            return "float16"
        weights[_DTYPES[matrix.type.name]] += math.prod(matrix.shape)
    return weights.most_common(1)[0][0]


def _wanted(config: dict[str, Any], layers: int) -> Iterator[tuple[str, _Place]]:
    """GGUF's names of this model's tensors; for each MLX's name of its layer, its shape, the interleaved heads."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    yield "token_embd.weight", ("model.embed_tokens", (vocab, hidden), 0)
    yield "output_norm.weight", ("model.norm", (hidden,), 0)
    if not config["tie_word_embeddings"]:
        yield "output.weight", ("lm_head", (vocab, hidden), 0)
    for block in range(layers):
        ours = f"model.layers.{block}"
        yield f"blk.{block}.attn_norm.weight", (f"{ours}.input_layernorm", (hidden,), 0)
        yield f"blk.{block}.ffn_norm.weight", (f"{ours}.post_attention_layernorm", (hidden,), 0)
        for name, layer, outputs, inputs, heads in _products(config):
            yield f"blk.{block}.{name}.weight", (f"{ours}.{layer}", (outputs, inputs), heads)
            if config["attention_bias"] and layer.startswith("self_attn"):
                yield f"blk.{block}.{name}.bias", (f"{ours}.{layer}", (outputs,), heads)


def _products(config: dict[str, Any]) -> Iterator[tuple[str, str, int, int, int]]:
    """A layer's matrices: GGUF's name, MLX's, outputs, inputs, and interleaved heads."""
    hidden, wide, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    yield "attn_q", "self_attn.q_proj", heads * size, hidden, heads
    yield "attn_k", "self_attn.k_proj", kv_heads * size, hidden, kv_heads
    yield "attn_v", "self_attn.v_proj", kv_heads * size, hidden, 0
    yield "attn_output", "self_attn.o_proj", hidden, heads * size, 0
    yield "ffn_gate", "mlp.gate_proj", wide, hidden, 0
    yield "ffn_up", "mlp.up_proj", wide, hidden, 0
    yield "ffn_down", "mlp.down_proj", hidden, wide, 0
