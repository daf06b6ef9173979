"""Types whose caches are plain keys and values, with experts for feed-forward layers."""

from __future__ import annotations

from tests.helpers.models.base import Config, config, longrope

MODELS: dict[str, Config] = {
    "mixtral": config("mixtral"),
    "qwen2_moe": config("qwen2_moe"),
    "qwen3_moe": config("qwen3_moe"),
    "phimoe": config(
        "phimoe",
        original_max_position_embeddings=64,
        rope_scaling={**longrope(8), "long_mscale": 1.0, "short_mscale": 1.0},
    ),
    "phixtral": config("phixtral", num_vocab=320, model_dim=64, num_heads=4, num_layers=2, rotary_dim=8),
    "dbrx": config(
        "dbrx",
        d_model=64,
        n_layers=2,
        n_heads=4,
        attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        ffn_config={"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    ),
    "deepseek": config("deepseek", rope_scaling=None, first_k_dense_replace=1),
    "glm4_moe": config("glm4_moe", rope_scaling=None, use_qk_norm=True, first_k_dense_replace=1),
    "granitemoe": config("granitemoe"),
    "olmoe": config("olmoe"),
    "hunyuan": config(
        "hunyuan",
        moe_topk=2,
        num_shared_expert=1,
        use_mixed_mlp_moe=True,
        use_qk_norm=True,
        use_cla=True,
        cla_share_factor=2,
        rope_scaling={"alpha": 1.0, "factor": 1.0, "type": "dynamic"},
    ),
    "minimax": config("minimax", rotary_dim=8, shared_intermediate_size=0),
    "ernie4_5_moe": config(
        "ernie4_5_moe",
        moe_num_experts=4,
        moe_k=2,
        moe_layer_start_index=1,
        moe_layer_end_index=1,
        moe_layer_interval=1,
        moe_num_shared_experts=1,
    ),
    "dots1": config("dots1", first_k_dense_replace=1),
    "bailing_moe": config("bailing_moe", num_shared_experts=1, first_k_dense_replace=1),
    "solar_open": config("solar_open"),
    "Klear": config("Klear"),
    "llama4_text": config("llama4_text", intermediate_size_mlp=128, use_qk_norm=True, no_rope_layers=[1, 0]),
}
