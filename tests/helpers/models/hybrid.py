"""Types in which recurrent or convolution layers take turns with attention."""

from __future__ import annotations

from tests.helpers.models.base import WINDOW_TOKENS, Config, config

_DELTA = {
    "num_hidden_layers": 4,
    "full_attention_interval": 2,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
}
_QWEN_ROPE = {"type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
QWEN3_5 = config("qwen3_5_text", num_experts=0, rope_parameters=_QWEN_ROPE, **_DELTA)
QWEN3_5_MOE = config("qwen3_5_moe_text", rope_parameters=_QWEN_ROPE, **_DELTA)
LFM2 = config(
    "lfm2",
    num_hidden_layers=4,
    conv_bias=False,
    conv_L_cache=3,
    block_dim=64,
    block_ff_dim=128,
    block_multiple_of=16,
    block_ffn_dim_multiplier=1.0,
    block_auto_adjust_ff_dim=False,
    full_attn_idxs=[1, 3],
    layer_types=None,
)
_BAILING = {
    "num_hidden_layers": 4,
    "layer_group_size": 2,
    "group_norm_size": 2,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "moe_shared_expert_intermediate_size": 32,
}
_KDA = {"kda_layers": [1, 3], "full_attn_layers": [2, 4], "num_heads": 4, "head_dim": 32, "short_conv_kernel_size": 4}
_PACKED_LAYERS = [f"model.layers.{layer}.mlp.{name}" for layer in range(4) for name in ("gate_proj", "up_proj")]

MODELS: dict[str, Config] = {
    "qwen3_5": {"model_type": "qwen3_5", "vocab_size": 320, "text_config": QWEN3_5},
    "qwen3_5_moe": {"model_type": "qwen3_5_moe", "vocab_size": 320, "text_config": QWEN3_5_MOE},
    "qwen3_next": config("qwen3_next", **_DELTA),
    "lfm2": LFM2,
    "lfm2_moe": config(
        "lfm2_moe",
        num_hidden_layers=4,
        conv_bias=False,
        conv_L_cache=3,
        use_expert_bias=True,
        num_dense_layers=1,
        full_attn_idxs=[1, 3],
    ),
    "jamba": config(
        "jamba",
        num_hidden_layers=4,
        attn_layer_offset=1,
        attn_layer_period=2,
        expert_layer_offset=1,
        expert_layer_period=2,
        mamba_d_conv=4,
        mamba_d_state=16,
        mamba_expand=2,
        mamba_dt_rank=4,
    ),
    "nemotron_h": config(
        "nemotron_h",
        num_hidden_layers=4,
        hybrid_override_pattern=["M", "*", "M", "-"],
        mamba_num_heads=4,
        mamba_head_dim=16,
        mamba_proj_bias=False,
        ssm_state_size=16,
        n_groups=1,
        time_step_limit=[0.0, 100.0],
    ),
    "granitemoehybrid": config(
        "granitemoehybrid",
        num_hidden_layers=4,
        layer_types=["mamba", "attention"] * 2,
        mamba_n_heads=8,
        mamba_d_head=16,
        mamba_d_state=16,
        mamba_d_conv=4,
        mamba_n_groups=1,
        mamba_conv_bias=True,
        mamba_proj_bias=False,
        shared_intermediate_size=64,
        position_embedding_type="rope",
    ),
    "plamo2": config(
        "plamo2",
        num_hidden_layers=4,
        hidden_size_per_head=16,
        mamba_d_state=16,
        mamba_d_conv=4,
        mamba_num_heads=4,
        mamba_step=2,
        attention_window_size=2048,
        full_attention_idx=None,
    ),
    "recurrent_gemma": config(
        "recurrent_gemma",
        num_hidden_layers=3,
        num_key_value_heads=1,
        block_types=["recurrent", "recurrent", "attention"],
        conv1d_width=4,
        lru_width=64,
        logits_soft_cap=30.0,
        attention_window_size=WINDOW_TOKENS,
    ),
    "gear": config(
        "gear",
        num_hidden_layers=6,
        sliding_window=WINDOW_TOKENS,
        layer_types=["conv_mixer", "sliding_attention", "full_attention"] * 2,
    ),
    "olmo_hybrid": config(
        "olmo_hybrid",
        linear_allow_neg_eigval=True,
        layer_types=["linear_attention", "full_attention"] * 2,
        **_DELTA,
    ),
    "kimi_linear": config(
        "kimi_linear",
        num_hidden_layers=4,
        model_max_length=4096,
        num_shared_experts=1,
        first_k_dense_replace=1,
        q_lora_rank=None,
        linear_attn_config=_KDA,
    ),
    "kimi_k3": {
        "model_type": "kimi_k3",
        "vocab_size": 320,
        "text_config": config(
            "kimi_linear",
            num_hidden_layers=4,
            hidden_act="situ",
            num_shared_experts=1,
            num_experts_per_token=2,
            first_k_dense_replace=1,
            linear_attn_config=_KDA,
        ),
    },
    "bailing_hybrid": config("bailing_hybrid", **_BAILING),
    "bailing_moe_linear": config("bailing_moe_linear", **_BAILING),
    "bailing_moe_v3": config(
        "bailing_hybrid",
        architectures=["BailingMoeV3ForCausalLM"],
        short_conv_kernel_size=4,
        **{**_BAILING, "head_dim": 32},
    ),
    "prism_hadamard_qwen35": {
        "model_type": "prism_hadamard_qwen35",
        "vocab_size": 320,
        "schema_version": 1,
        "tensor_namespace": "mlx-lm-text",
        "quantization": {"bits": 2, "group_size": 128, "mode": "affine"},
        "modules": [{"path": path, "embedding": False, "dtype": "float16", "block": 0} for path in _PACKED_LAYERS],
        "text_config": {**QWEN3_5, "hidden_size": 128},
    },
}
