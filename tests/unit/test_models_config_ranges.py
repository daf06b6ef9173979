"""The numbers of config.json: those of ordinary models pass, those that would fill memory are named."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.models.config_check import check_against_weights, check_config
from mlx_grpc.models.config_ranges import RANGES, RangeError
from mlx_grpc.models.weights_header import WeightFacts
from tests.helpers.models.catalog import MODELS

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 320,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
}  # fmt: skip
WEIGHTS = WeightFacts(size_bytes=1 << 20, tensors=20, most_weights=100_000, largest_dimension=320)

PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama 4 Scout": {
        "model_type": "llama4", "text_config": {
            "model_type": "llama4_text", "max_position_embeddings": 10_485_760, "num_hidden_layers": 48,
            "hidden_size": 5120, "vocab_size": 202_048, "num_local_experts": 16, "num_attention_heads": 40,
            "num_key_value_heads": 8, "head_dim": 128, "rope_theta": 500_000.0, "attention_chunk_size": 8192,
            "no_rope_layers": [1, 1, 1, 0] * 12, "eos_token_id": [200_001, 200_007, 200_008],
            "pad_token_id": 200_018, "attn_temperature_tuning": True,
        }, "vision_config": {"hidden_size": 1408, "vision_output_dim": 4096, "num_key_value_heads": None},
    },
    "Gemma 3": {
        "model_type": "gemma3", "image_token_index": 262_144,
        "text_config": {"vocab_size": 262_208, "sliding_window": 1024, "rope_local_base_freq": 1e4},
        "boi_token_index": 255_999,
    },
    "Gemma 3n": {"model_type": "gemma3n", "text_config": {"intermediate_size": [16_384] * 35, "num_hidden_layers": 35}},
    "DeepSeek V3": {
        "model_type": "deepseek_v3", "num_hidden_layers": 61, "n_routed_experts": 256, "n_group": 8,
        "vocab_size": 129_280,
        "num_nextn_predict_layers": 1, "qk_nope_head_dim": 128, "num_attention_heads": 128, "hidden_size": 7168,
        "num_key_value_heads": 128, "max_position_embeddings": 163_840, "routed_scaling_factor": 2.5,
    },
    "512 experts": {"model_type": "qwen3_next", "num_experts": 512, "num_experts_per_tok": 10, "num_hidden_layers": 48},
    "126 layers": {"model_type": "llama", "num_hidden_layers": 126, "hidden_size": 16_384, "num_attention_heads": 128},
    "Mamba 2": {
        "model_type": "mamba2", "time_step_limit": [0.0, math.inf], "num_heads": 128, "state_size": 128,
        "time_step_rank": "auto", "num_hidden_layers": 64, "hidden_size": 4096,
    },
    "OpenELM": {
        "model_type": "openelm", "num_query_heads": [12] * 16, "num_kv_heads": [3] * 16, "ffn_multipliers": [0.5] * 16,
        "num_transformer_layers": 16, "model_dim": 1280, "max_context_length": 2048,
    },
    "Bunny": {"model_type": "bunny-llama", "image_token_index": -200, "tie_word_embeddings": False},
    "Step 3.5": {
        "model_type": "step3p5", "num_hidden_layers": 45, "num_nextn_predict_layers": 3,
        "layer_types": ["full_attention"] * 48,
    },
    "Nemotron H": {"model_type": "nemotron_h", "num_hidden_layers": 52, "hybrid_override_pattern": "M-" * 26},
    "per-layer quantisation": {
        **LLAMA,
        "quantization": {
            "group_size": 64, "bits": 4,
            **{f"model.layers.{n}.mlp.gate": {"group_size": 64, "bits": 8} for n in range(2000)},
        },
    },
}  # fmt: skip

HOSTILE: list[tuple[str, Any]] = [
    ("max_position_embeddings", 2**40), ("max_position_embeddings", 0), ("num_hidden_layers", 10**9),
    ("num_hidden_layers", -1), ("num_hidden_layers", 0), ("num_hidden_layers", 2.0), ("num_hidden_layers", "2"),
    ("num_hidden_layers", True), ("num_hidden_layers", math.nan), ("num_hidden_layers", {}),
    ("num_hidden_layers", math.inf),
    ("hidden_size", 2**31), ("vocab_size", 2**31), ("vocab_size", -320), ("intermediate_size", 2**40),
    ("num_attention_heads", 0), ("num_attention_heads", 10**6), ("num_key_value_heads", 3), ("num_key_value_heads", 0),
    ("head_dim", 2**30), ("rms_norm_eps", math.nan), ("rms_norm_eps", -1.0), ("rope_theta", math.inf),
    ("rope_theta", 0),
    ("num_experts", 10**6), ("num_local_experts", 2**40), ("sliding_window", 2**40), ("conv_kernel", 2**40),
    ("eos_token_id", 2**31), ("eos_token_id", list(range(10**5))), ("eos_token_id", [1, "2"]), ("eos_token_id", 1.5),
    ("layer_types", ["full_attention"] * 3), ("hybrid_override_pattern", "M" * 10_000), ("unknown", 10**30),
    ("unknown", [0] * 10**6), ("unknown", "x" * 10**6), ("rope_scaling", {"factor": math.nan}), ("model_type", "../x"),
    ("model_type", 3),
]  # fmt: skip

EXPECTED = {"rope_scaling": "rope_scaling.factor"}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_type_that_is_served_passes(name: str) -> None:
    """All tiny models of the sweep, as their config.json has them."""
    check_config(json.loads(json.dumps(MODELS[name])))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values_pass(name: str) -> None:
    """The longest contexts, the most experts, lists for each layer, and numbers that stand for nothing."""
    check_config(PUBLISHED[name])


@pytest.mark.parametrize(("field", "value"), HOSTILE)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    """One short line, at the top and in the part for text."""
    at_fault = EXPECTED.get(field, field)
    broken = LLAMA | {field: value}
    for config, path in ((broken, at_fault), ({"text_config": broken}, f"text_config.{at_fault}")):
        with pytest.raises(RangeError) as refused:
            check_config(config)
        assert refused.value.field == path
        assert len(str(refused.value)) < 300


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    """Unless their own width is given."""
    odd = LLAMA | {"num_attention_heads": 6}
    with pytest.raises(RangeError, match="num_attention_heads is 6, which does not divide the hidden_size of 64"):
        check_config(odd)
    check_config(odd | {"head_dim": 16})


def test_deep_nesting_is_refused() -> None:
    """Objects and lists, far below what the reader of JSON can take."""
    for start, wrap in (({}, lambda inner: {"a": inner}), ([], lambda inner: [inner])):
        nested: Any = start
        for _ in range(40):
            nested = wrap(nested)
        with pytest.raises(RangeError, match="deep"):
            check_config({**LLAMA, "extra": nested})


@pytest.mark.parametrize(
    ("field", "value"), [("num_hidden_layers", 21), ("hidden_size", 4096), ("vocab_size", 1_000_000)]
)
def test_a_config_announces_no_more_than_the_weights_hold(field: str, value: int) -> None:
    """More layers than tensors, a width that no tensor has, more tokens than there are numbers."""
    check_against_weights(LLAMA, WEIGHTS)
    config = LLAMA | {field: value}
    check_config(config)
    with pytest.raises(RangeError, match=field):
        check_against_weights(config, WEIGHTS)
    with pytest.raises(RangeError, match=f"text_config.{field}"):
        check_against_weights({"text_config": config}, WEIGHTS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(sorted({*LLAMA, "text_config", "eos_token_id", "layer_types", "rope_scaling", "num_experts"}))


@given(st.dictionaries(names, json_values | st.dictionaries(names, json_values)))
def test_any_config_passes_or_is_out_of_range(config: dict[str, Any]) -> None:
    """Nothing else is raised, and what passes can be counted with."""
    try:
        check_config(config)
        check_against_weights(config, WEIGHTS)
    except RangeError:
        return
    for section in (config, config.get("text_config") or {}):
        if isinstance(section, dict):
            assert 1 <= (section.get("num_hidden_layers") or 1) <= WEIGHTS.tensors or isinstance(
                section["num_hidden_layers"], list
            )


def test_each_row_of_the_table_is_a_pattern_with_an_order() -> None:
    """The least is not above the most."""
    assert all(row.least <= row.most and row.least_inside <= row.most for row in RANGES)
