"""Tiny models of the families that can be imported: a folder, and a GGUF file of the same weights, laid out as
llama.cpp's converter does it and written by the package `gguf`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES, GGMLQuantizationType, RopeScalingType
from gguf.quants import quantize

from tests.helpers.gguf_blocks import Floats
from tests.helpers.gguf_vocabularies import Vocabulary
from tests.helpers.models.base import Config, config
from tests.helpers.models.folder import write_folder

ARCHITECTURES = {
    "llama": MODEL_ARCH.LLAMA, "mistral": MODEL_ARCH.LLAMA, "qwen2": MODEL_ARCH.QWEN2, "qwen3": MODEL_ARCH.QWEN3,
    "gemma2": MODEL_ARCH.GEMMA2, "gemma3_text": MODEL_ARCH.GEMMA3, "phi3": MODEL_ARCH.PHI3,
}  # fmt: skip
_GEMMA3 = config(
    "gemma3_text", num_hidden_layers=5, head_dim=32, query_pre_attn_scalar=32, sliding_window=40,
    sliding_window_pattern=3, rope_theta=50_000.0, rope_local_base_freq=5000.0, tie_word_embeddings=True,
)  # fmt: skip
MODELS: dict[str, Config] = {
    "llama": config("llama"),
    "llama_biases_tied": config("llama", attention_bias=True, tie_word_embeddings=True, rope_theta=500_000.0),
    "llama_linear": config("llama", rope_scaling={"type": "linear", "factor": 4.0}),
    "mistral": config("mistral", head_dim=32, rope_theta=1_000_000.0),
    "qwen2": config("qwen2", rope_theta=1_000_000.0),
    "qwen2_tied": config("qwen2", tie_word_embeddings=True),
    "qwen3": config("qwen3", head_dim=32, rope_theta=1_000_000.0),
    "qwen3_tied": config("qwen3", tie_word_embeddings=True),
    "gemma2": config(
        "gemma2", head_dim=32, query_pre_attn_scalar=32, attn_logit_softcapping=3.0, final_logit_softcapping=2.0,
        tie_word_embeddings=True,
    ),
    "gemma3_text": _GEMMA3,
    "gemma3_text_linear": {**_GEMMA3, "rope_scaling": {"type": "linear", "factor": 8.0}},
    "gemma3_text_output": {**_GEMMA3, "tie_word_embeddings": False},
    "phi3": config("phi3", rope_scaling=None, partial_rotary_factor=1.0, original_max_position_embeddings=4096),
    "phi3_longrope": config(
        "phi3", partial_rotary_factor=0.75, original_max_position_embeddings=64,
        rope_scaling={
            "type": "longrope",
            "long_factor": [1.0 + 0.25 * pair for pair in range(6)], "short_factor": [1.0] * 6,
        },
    ),
}  # fmt: skip
"""By name: the type, or that with a word for what is special."""


def write_family(settings: Config, vocabulary: Vocabulary, folder: Path) -> Path:
    """The folder of a model with this tokenizer; no weights of its own for an output that shares the embedding's."""
    write_folder({**settings, "vocab_size": vocabulary.size}, folder)
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    if settings["tie_word_embeddings"] and weights.pop("lm_head.weight", None) is not None:
        mx.eval(weights)
        mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    vocabulary.tokenizer.save(str(folder / "tokenizer.json"))
    words = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": vocabulary.bos,
        "eos_token": vocabulary.eos,
        "chat_template": vocabulary.template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    return folder


def convert(
    folder: Path,
    vocabulary: Vocabulary,
    path: Path,
    types: Mapping[str, str] | None = None,
    **changes: Any,
) -> Path:
    """The folder as one file. `types`: of tensors, by their GGUF names, that are not F32; a change of the metadata to
    None takes a key out (`__` in it stands for a dot)."""
    settings = json.loads((folder / "config.json").read_text("utf-8"))
    architecture = ARCHITECTURES[settings["model_type"]]
    writer = gguf.GGUFWriter(path, MODEL_ARCH_NAMES[architecture])
    _shape(writer, settings)
    if own := _SHAPES.get(settings["model_type"]):
        own(writer, settings)
    for key, value in vocabulary.metadata.items():
        _add(writer, f"tokenizer.ggml.{key}", value)
    writer.add_chat_template(vocabulary.template)
    for key, value in changes.items():
        writer.kv_data[0].pop(key.replace("__", "."), None)
        if value is not None:
            _add(writer, key.replace("__", "."), value)
    for name, array in _tensors(folder, settings).items():
        _add_tensor(writer, name, array, (types or {}).get(name, "F32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shape(writer: gguf.GGUFWriter, settings: Config) -> None:
    """What the converter writes of all models."""
    writer.add_block_count(settings["num_hidden_layers"])
    writer.add_context_length(settings["max_position_embeddings"])
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_head_count(settings["num_attention_heads"])
    writer.add_head_count_kv(settings["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(settings["rms_norm_eps"])
    if settings["model_type"] != "phi3":
        writer.add_key_length(settings["head_dim"])
        writer.add_value_length(settings["head_dim"])
    if settings["model_type"] != "gemma2":
        writer.add_rope_freq_base(settings["rope_theta"])
    scaling = settings.get("rope_scaling") or {}
    if scaling.get("type") == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])


def _llama(writer: gguf.GGUFWriter, settings: Config) -> None:
    writer.add_vocab_size(settings["vocab_size"])
    writer.add_rope_dimension_count(settings["head_dim"])


def _gemma2(writer: gguf.GGUFWriter, settings: Config) -> None:
    writer.add_attn_logit_softcapping(settings["attn_logit_softcapping"])
    writer.add_final_logit_softcapping(settings["final_logit_softcapping"])
    writer.add_sliding_window(4096)


def _gemma3(writer: gguf.GGUFWriter, settings: Config) -> None:
    writer.add_rope_freq_base_swa(settings["rope_local_base_freq"])
    writer.add_sliding_window(settings["sliding_window"])
    writer.add_sliding_window_pattern(settings["sliding_window_pattern"])


def _phi3(writer: gguf.GGUFWriter, settings: Config) -> None:
    width = settings["hidden_size"] // settings["num_attention_heads"]
    original = settings["original_max_position_embeddings"]
    writer.add_rope_scaling_orig_ctx_len(original)
    writer.add_rope_dimension_count(int(settings["partial_rotary_factor"] * width))
    writer.add_sliding_window(0)
    if settings.get("rope_scaling"):
        stretch = settings["max_position_embeddings"] / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(stretch) / math.log(original)))


_SHAPES = {"llama": _llama, "mistral": _llama, "gemma2": _gemma2, "gemma3_text": _gemma3, "phi3": _phi3}


def _tensors(folder: Path, settings: Config) -> dict[str, Floats]:
    """By GGUF's names, as the package has them."""
    names = gguf.get_tensor_name_map(ARCHITECTURES[settings["model_type"]], settings["num_hidden_layers"])
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    found: dict[str, Floats] = {}
    for name, array in weights.items():
        mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert mapped, name
        found[mapped] = _laid_out(name, np.array(array), settings)
    if (scaling := settings.get("rope_scaling") or {}).get("type") == "longrope":
        for kind in ("long", "short"):
            found[f"rope_factors_{kind}.weight"] = np.array(scaling[f"{kind}_factor"], np.float32)
    return found


def _laid_out(name: str, array: Floats, settings: Config) -> Floats:
    if settings["model_type"].startswith("gemma") and name.endswith("norm.weight"):
        return array + np.float32(1)
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if heads is None or settings["model_type"] not in ("llama", "mistral"):
        return array
    halves = array.reshape(settings[heads], 2, -1, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _add_tensor(writer: gguf.GGUFWriter, name: str, array: Floats, kind: str) -> None:
    if kind == "F32":
        writer.add_tensor(name, array)
    else:
        quantised = quantize(array, GGMLQuantizationType[kind])
        writer.add_tensor(name, quantised.view(np.uint8), raw_dtype=GGMLQuantizationType[kind])
