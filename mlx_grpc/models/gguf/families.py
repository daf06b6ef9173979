"""The families of model that can be imported, each as one table: its tensors, and what its config.json holds.

Names of tensors and metadata are llama.cpp's; names of weights and of entries of config.json are those of mlx_lm's
classes, which are Hugging Face's.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_grpc.models.gguf.header import GgufHeader
from mlx_grpc.models.sources import ModelSourceError

INSTEAD = "use an MLX version of the model instead"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor belongs.

    shape: names of sizes (`layout.sizes`), outputs first. heads: the entry of config.json with the number of heads by
    which llama.cpp interleaved the rows. is_norm: the family's `norms_plus` was added. where: the tensor is there if
    this entry of config.json is true.
    """

    gguf: str
    mlx: str
    shape: tuple[str, ...]
    heads: str = ""
    is_norm: bool = False
    where: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A number of config.json, and the metadata that has it, after the family's name. No default: it must be there."""

    name: str
    key: str
    default: float | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """One family. architecture: `general.architecture`, and how the keys of its metadata begin.

    places: tensors of one layer. ties: the output always shares the embedding's weights.
    rope_scalings: the kinds of `rope.scaling.type` that mlx_lm's class computes alike; `llama3` and `longrope` have
    their numbers in tensors.
    norms_plus: llama.cpp stores a norm's weight plus this.
    splits_width: a head's width is the model's width over the number of heads, and nothing else.
    turns_part: rotations may leave a part of each head alone.
    width_scaled_layers: a model of so many layers scales its attention by width over heads, others by the head's width.
    slides: some layers see a window of the last tokens.
    half: what the arithmetic of half precision is in. bfloat16 where activations leave the range of float16.
    marks_take_space: special tokens of a SentencePiece vocabulary swallow the white space after them.
    spaces_are_pieces: runs of spaces are SentencePiece's own pieces, which llama.cpp stores with real spaces.
    """

    name: str
    architecture: str
    model_type: str
    model_class: str
    places: tuple[Place, ...]
    entries: tuple[Entry, ...] = ()
    ties: bool = False
    rope_scalings: tuple[str, ...] = ()
    norms_plus: float = 0.0
    splits_width: bool = False
    turns_part: bool = False
    width_scaled_layers: int = 0
    slides: bool = False
    half: str = "float16"
    marks_take_space: bool = False
    spaces_are_pieces: bool = False


def _norm(gguf: str, mlx: str, size: str = "hidden") -> Place:
    return Place(f"{gguf}.weight", f"{mlx}.weight", (size,), is_norm=True)


def _linear(gguf: str, mlx: str, outputs: str, inputs: str, heads: str = "") -> Place:
    return Place(f"{gguf}.weight", f"{mlx}.weight", (outputs, inputs), heads)


def _bias(gguf: str, mlx: str, outputs: str, heads: str = "", where: str = "") -> Place:
    return Place(f"{gguf}.bias", f"{mlx}.bias", (outputs,), heads, where=where)


EMBEDDING = _linear("token_embd", "model.embed_tokens", "vocab", "hidden")
OUTPUT = _linear("output", "lm_head", "vocab", "hidden")
OUTPUT_NORM = _norm("output_norm", "model.norm")

_NORMS = (_norm("attn_norm", "input_layernorm"), _norm("ffn_norm", "post_attention_layernorm"))
_NORMS_ON_BOTH_SIDES = (
    _norm("attn_norm", "input_layernorm"),
    _norm("post_attention_norm", "post_attention_layernorm"),
    _norm("ffn_norm", "pre_feedforward_layernorm"),
    _norm("post_ffw_norm", "post_feedforward_layernorm"),
)
_NORMS_OF_HEADS = (_norm("attn_q_norm", "self_attn.q_norm", "head"), _norm("attn_k_norm", "self_attn.k_norm", "head"))
_ATTENTION = (
    _linear("attn_q", "self_attn.q_proj", "queries", "hidden"),
    _linear("attn_k", "self_attn.k_proj", "keys", "hidden"),
    _linear("attn_v", "self_attn.v_proj", "keys", "hidden"),
    _linear("attn_output", "self_attn.o_proj", "hidden", "queries"),
)
_INTERLEAVED_ATTENTION = (
    _linear("attn_q", "self_attn.q_proj", "queries", "hidden", "num_attention_heads"),
    _linear("attn_k", "self_attn.k_proj", "keys", "hidden", "num_key_value_heads"),
    *_ATTENTION[2:],
)
_GATED = (
    _linear("ffn_gate", "mlp.gate_proj", "wide", "hidden"),
    _linear("ffn_up", "mlp.up_proj", "wide", "hidden"),
    _linear("ffn_down", "mlp.down_proj", "hidden", "wide"),
)

LLAMA = Family(
    "Llama", "llama", "llama", "LlamaForCausalLM",
    (
        *_NORMS, *_INTERLEAVED_ATTENTION, *_GATED,
        _bias("attn_q", "self_attn.q_proj", "queries", "num_attention_heads", where="attention_bias"),
        _bias("attn_k", "self_attn.k_proj", "keys", "num_key_value_heads", where="attention_bias"),
        _bias("attn_v", "self_attn.v_proj", "keys", where="attention_bias"),
        _bias("attn_output", "self_attn.o_proj", "hidden", where="attention_bias"),
    ),
    rope_scalings=("linear", "llama3"),
)  # fmt: skip
QWEN2 = Family(
    "Qwen2", "qwen2", "qwen2", "Qwen2ForCausalLM",
    (
        *_NORMS, *_ATTENTION, *_GATED,
        _bias("attn_q", "self_attn.q_proj", "queries"),
        _bias("attn_k", "self_attn.k_proj", "keys"),
        _bias("attn_v", "self_attn.v_proj", "keys"),
    ),
    rope_scalings=("linear",),
    splits_width=True,
)  # fmt: skip
QWEN3 = Family(
    "Qwen3", "qwen3", "qwen3", "Qwen3ForCausalLM",
    (*_NORMS, *_NORMS_OF_HEADS, *_ATTENTION, *_GATED),
    rope_scalings=("linear",),
)  # fmt: skip
GEMMA2 = Family(
    "Gemma 2", "gemma2", "gemma2", "Gemma2ForCausalLM",
    (*_NORMS_ON_BOTH_SIDES, *_ATTENTION, *_GATED),
    (
        Entry("attn_logit_softcapping", "attn_logit_softcapping", 50.0),
        Entry("final_logit_softcapping", "final_logit_softcapping", 30.0),
    ),
    ties=True,
    norms_plus=1.0,
    width_scaled_layers=46,  # 27B
    half="bfloat16",
    spaces_are_pieces=True,
)  # fmt: skip
GEMMA3 = Family(
    "Gemma 3", "gemma3", "gemma3_text", "Gemma3ForCausalLM",
    (*_NORMS_ON_BOTH_SIDES, *_NORMS_OF_HEADS, *_ATTENTION, *_GATED),
    (Entry("rope_local_base_freq", "rope.freq_base_swa", 10_000.0),),
    rope_scalings=("linear",),
    norms_plus=1.0,
    width_scaled_layers=62,  # 27B
    slides=True,
    half="bfloat16",
    spaces_are_pieces=True,
)  # fmt: skip
PHI3 = Family(
    "Phi-3", "phi3", "phi3", "Phi3ForCausalLM",
    (
        *_NORMS,
        _linear("attn_qkv", "self_attn.qkv_proj", "queries_keys_values", "hidden"),
        _linear("attn_output", "self_attn.o_proj", "hidden", "queries"),
        _linear("ffn_up", "mlp.gate_up_proj", "gate_up", "hidden"),
        _linear("ffn_down", "mlp.down_proj", "hidden", "wide"),
    ),
    rope_scalings=("longrope",),
    splits_width=True,
    turns_part=True,
    marks_take_space=True,
)  # fmt: skip

FAMILIES = {family.architecture: family for family in (LLAMA, QWEN2, QWEN3, GEMMA2, GEMMA3, PHI3)}


def family_of(header: GgufHeader) -> Family:
    """The file's. Raises ModelSourceError with the family's name for one that is not known."""
    architecture = header.require("general.architecture")
    family = FAMILIES.get(architecture) if isinstance(architecture, str) else None
    if family is None:
        raise ModelSourceError(
            f"{header.path}: architecture {str(architecture)[:100]!r} cannot be imported, only {', '.join(FAMILIES)}; "
            f"{INSTEAD}"
        )
    return family
