"""Types with sliding windows: rotating caches, beside plain ones for the layers that see everything."""

from __future__ import annotations

from tests.helpers.models.base import CONTEXT_LENGTH, SLIDING, WINDOW_TOKENS, YARN, Config, config, rope_by_layer

GEMMA3N = {
    **SLIDING,
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "num_kv_shared_layers": 2,
    "vocab_size_per_layer_input": 320,
    "hidden_size_per_layer_input": 16,
}
_GEMMA4 = {**GEMMA3N, "global_head_dim": 32, "num_experts": None, "partial_rotary_factor": 1.0}

MODELS: dict[str, Config] = {
    "gemma3_text": config(
        "gemma3_text",
        num_hidden_layers=4,
        sliding_window=WINDOW_TOKENS,
        sliding_window_pattern=2,
        query_pre_attn_scalar=16,
    ),
    "gemma4_text": config("gemma4_text", **_GEMMA4),
    "gpt_oss": config("gpt_oss", rope_scaling=None, **SLIDING),
    "llama_sliding": config("llama", **SLIDING),
    "ministral3": config(
        "ministral3", rope_parameters={**YARN, "rope_theta": 10000.0, "llama_4_scaling_beta": 0.1}, **SLIDING
    ),
    "olmo3": config("olmo3", num_hidden_layers=4, sliding_window=WINDOW_TOKENS),
    "cohere2": config(
        "cohere2", logit_scale=1.0, num_hidden_layers=4, sliding_window=WINDOW_TOKENS, sliding_window_pattern=2
    ),
    "exaone4": config(
        "exaone4",
        num_hidden_layers=4,
        sliding_window=WINDOW_TOKENS,
        sliding_window_pattern="LG",
        rope_scaling=None,
    ),
    "exaone_moe": config("exaone_moe", num_shared_experts=1, is_moe_layer=[False, True, True, True], **SLIDING),
    "afmoe": config("afmoe", num_shared_experts=1, num_dense_layers=1, **SLIDING),
    "laguna": config("laguna", rope_parameters=rope_by_layer(), **SLIDING),
    "mellum": config("mellum", rope_parameters=rope_by_layer(), **SLIDING),
    "mimo_v2_flash": config(
        "mimo_v2_flash",
        num_hidden_layers=4,
        hybrid_layer_pattern=[0, 1, 0, 1],
        moe_layer_freq=[0, 1, 1, 1],
        add_swa_attention_sink_bias=True,
        add_full_attention_sink_bias=False,
        sliding_window_size=WINDOW_TOKENS,
        layernorm_epsilon=1e-5,
        swa_rope_theta=10000.0,
        swa_num_attention_heads=4,
        swa_num_key_value_heads=4,
        swa_head_dim=16,
        swa_v_head_dim=16,
        n_shared_experts=None,
    ),
    "muse_glimmer": config("muse_glimmer", **SLIDING),
    # mlx_lm masks one token more than the window's cache keeps: where that rotates, its answer depends on the chunks in
    # which a prompt was processed.
    "plamo3": config("plamo3", num_hidden_layers=4, window_size=CONTEXT_LENGTH, sliding_window_pattern=2),
    "plamo3_window": config("plamo3", num_hidden_layers=4, window_size=WINDOW_TOKENS, sliding_window_pattern=2),
    "spark2_5": config("spark2_5", hidden_act="gelu", rope_parameters=rope_by_layer(), **SLIDING),
    "step3p5": config(
        "step3p5",
        num_attention_groups=2,
        moe_num_experts=4,
        moe_top_k=2,
        share_expert_dim=32,
        attention_other_setting={"num_attention_heads": 2, "num_attention_groups": 1},
        **SLIDING,
    ),
}
