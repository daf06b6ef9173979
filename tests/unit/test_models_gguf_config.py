"""What config.json says of each family, where the file says it in other words or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_grpc.models.gguf.config import model_config
from mlx_grpc.models.gguf.families import FAMILIES
from mlx_grpc.models.gguf.header import read_header
from mlx_grpc.models.sources import ModelSourceError
from tests.helpers.gguf import small_metadata, write_gguf
from tests.helpers.gguf_blocks import Floats


def config_of(folder: Path, architecture: str, **changes: Any) -> dict[str, Any]:
    """Of a file with the small Llama's sizes under another family's name; `gemma3__x` is a key of that family's."""
    metadata = {
        key.replace("llama.", f"{architecture}.", 1) if key.startswith("llama.") else key: value
        for key, value in small_metadata(general__architecture=architecture).items()
    }
    metadata |= {key.replace("__", "."): value for key, value in changes.items()}
    embedding: Floats = np.zeros((len(metadata["tokenizer.ggml.tokens"]), 64), np.float32)
    path = write_gguf(folder / "a.gguf", metadata, {"token_embd.weight": embedding})
    return model_config(read_header(path))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_each_family_is_mlx_lms_class(tmp_path: Path, architecture: str) -> None:
    """By its name there; heads are the file's."""
    config = config_of(tmp_path, architecture)
    assert config["model_type"] == FAMILIES[architecture].model_type
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (4, 2, 16)


@pytest.mark.parametrize(
    ("architecture", "layers", "scalar"),
    [("gemma2", 26, 32), ("gemma2", 46, 16), ("gemma3", 34, 32), ("gemma3", 62, 16), ("gemma3", 46, 32)],
)
def test_gemmas_27b_scales_its_attention_by_width_over_heads(
    tmp_path: Path, architecture: str, layers: int, scalar: float
) -> None:
    """The others by the width of a head. The file has only the number of layers to tell them apart."""
    changes = {f"{architecture}__block_count": layers, f"{architecture}__attention__key_length": 32}
    assert config_of(tmp_path, architecture, **changes)["query_pre_attn_scalar"] == scalar


@pytest.mark.parametrize(
    ("said", "every"),
    [
        ({}, 6),
        ({"gemma3__attention__sliding_window_pattern": 3}, 3),
        ({"gemma3__attention__sliding_window_pattern": [True, False] * 6}, 2),
    ],
)
def test_which_layers_of_gemma_3_have_a_window(tmp_path: Path, said: dict[str, Any], every: int) -> None:
    """The file says nothing, a number, or so for each layer."""
    changes = {"gemma3__block_count": 12, "gemma3__attention__sliding_window": 512, **said}
    config = config_of(tmp_path, "gemma3", **changes)
    assert (config["sliding_window"], config["sliding_window_pattern"]) == (512, every)


def test_gemma_3_without_windows(tmp_path: Path) -> None:
    """All layers see everything."""
    assert config_of(tmp_path, "gemma3")["sliding_window_pattern"] == 1


@pytest.mark.parametrize(
    "pattern", [0, 13, True, "6", [True] * 12, [False, True] * 6, [True, False] * 5, [True, True, False, True] * 3]
)
def test_windows_that_mlx_lm_cannot_say_are_refused(tmp_path: Path, pattern: Any) -> None:
    """It has one full layer after each so many."""
    changes = {"gemma3__block_count": 12, "gemma3__attention__sliding_window": 512}
    with pytest.raises(ModelSourceError, match="sliding_window_pattern with 12 layers"):
        config_of(tmp_path, "gemma3", **changes, gemma3__attention__sliding_window_pattern=pattern)


@pytest.mark.parametrize(("turned", "heads", "hidden"), [(12, 4, 64), (96, 24, 3072), (30, 1, 98), (4, 1, 98)])
def test_phi_3_turns_a_part_of_each_head(tmp_path: Path, turned: int, heads: int, hidden: int) -> None:
    """mlx_lm multiplies the share by the head's width, and cuts."""
    sizes = {"embedding_length": hidden, "attention__head_count": heads, "attention__head_count_kv": 1}
    changes = {f"phi3__{key}": value for key, value in sizes.items()}
    config = config_of(tmp_path, "phi3", **changes, phi3__rope__dimension_count=turned)
    assert int(hidden // heads * config["partial_rotary_factor"]) == turned


@pytest.mark.parametrize("architecture", [name for name in FAMILIES if name != "phi3"])
def test_other_families_turn_whole_heads(tmp_path: Path, architecture: str) -> None:
    """mlx_lm's classes do."""
    with pytest.raises(ModelSourceError, match="rope over a part of each head"):
        config_of(tmp_path, architecture, **{f"{architecture}__rope__dimension_count": 8})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("qwen2__block_count", True, "qwen2.block_count is True, not a positive number"),
        ("qwen2__attention__layer_norm_rms_epsilon", float("nan"), "qwen2.attention.layer_norm_rms_epsilon is nan"),
        ("qwen2__rope__freq_base", "x", "qwen2.rope.freq_base is 'x', not a positive number"),
        ("qwen2__rope__freq_base", -1.0, "qwen2.rope.freq_base is -1.0, not a positive number"),
        ("qwen2__rope__scaling__type", ["a"], "rope scaling"),
        ("gemma2__final_logit_softcapping", 0.0, "gemma2.final_logit_softcapping is 0.0, not a positive number"),
    ],
)
def test_other_values_are_refused(tmp_path: Path, key: str, value: Any, said: str) -> None:
    """By the name of the key. mlx_lm would divide by a soft cap of 0."""
    with pytest.raises(ModelSourceError, match=said):
        config_of(tmp_path, key.partition("__")[0], **{key: value})
