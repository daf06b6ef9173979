"""What the tiny models have in common: a config.json with the keys of many types, of which each reads its own."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

VOCAB_SIZE = 320
"""As many tokens as the test tokenizer has (tests/helpers/llama.py)."""
CONTEXT_LENGTH = 4096
WINDOW_TOKENS = 40
"""Of sliding attention, and of those who choose among keys. Longer than the rows of the engine's test at load (29
tokens), as real windows are, so that nothing is found there that would not be found in service; shorter than what the
sweep generates, so that windows rotate in nearly every scenario."""

_COMMON: Config = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "max_position_embeddings": CONTEXT_LENGTH,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-5,
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    # experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "first_k_dense_replace": 0,
    "moe_layer_freq": 1,
    # latent attention
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    # multipliers of Granite and others
    "logits_scaling": 1.0,
    "attention_multiplier": 0.25,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    # recurrent layers
    "conv_kernel": 4,
    "use_conv_bias": True,
    "state_size": 16,
}

SLIDING: Config = {
    "num_hidden_layers": 4,
    "sliding_window": WINDOW_TOKENS,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
"""Windows and full attention in turns, for the types that list their layers."""

YARN: Config = {
    "type": "yarn",
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "beta_fast": 32,
    "beta_slow": 1,
}
LLAMA3: Config = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def longrope(frequencies: int) -> Config:
    """Longrope scaling; half as many factors as the rotary part of a head has numbers."""
    return {
        "type": "longrope",
        "long_factor": [1.5] * frequencies,
        "short_factor": [1.0] * frequencies,
        "original_max_position_embeddings": 64,
    }


def rope_by_layer(**parameters: Any) -> Config:
    """`rope_parameters` of the types that have one set for each kind of layer."""
    return {kind: {"rope_theta": 10000.0, **parameters} for kind in ("sliding_attention", "full_attention")}


def config(model_type: str, **keys: Any) -> Config:
    """A config.json: the keys that all have, and `keys` over them."""
    return {**_COMMON, "model_type": model_type, **keys}


def around(model_type: str, text: Config) -> Config:
    """A multimodal model's config.json, with the text model's nested in it, as its folder has it. mlx_lm loads the text
    part, and so do we."""
    return {"model_type": model_type, "vocab_size": text["vocab_size"], "text_config": text}
