"""Types that keep several caches in one layer, as a list."""

from __future__ import annotations

from tests.helpers.models.base import WINDOW_TOKENS, Config, config

_INDEXER = {"first_k_dense_replace": 1, "index_head_dim": 32, "index_n_heads": 2, "index_topk": WINDOW_TOKENS}
_LONGCAT = {
    "attention_method": "MLA",
    "zero_expert_type": "identity",
    "zero_expert_num": 1,
    "ffn_hidden_size": 128,
    "expert_ffn_hidden_size": 32,
    "moe_topk": 2,
    "num_layers": 2,
    "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True,
}
_CHUNKED = config(
    "llama4_text",
    rope_scaling=None,
    num_hidden_layers=4,
    intermediate_size_mlp=128,
    interleave_moe_layer_step=2,
    use_qk_norm=True,
    attention_chunk_size=WINDOW_TOKENS,
    num_experts_per_tok=1,
    no_rope_layers=[1, 1, 1, 0],
)

MODELS: dict[str, Config] = {
    "deepseek_v32": config("deepseek_v32", rope_scaling=None, **_INDEXER),
    "glm_moe_dsa": config("glm_moe_dsa", rope_parameters={"rope_theta": 10000.0, "rope_type": "default"}, **_INDEXER),
    "falcon_h1": config(
        "falcon_h1",
        mamba_d_ssm=64,
        mamba_n_heads=4,
        mamba_d_head=16,
        mamba_d_state=16,
        mamba_n_groups=1,
        mamba_d_conv=4,
        mamba_expand=1,
    ),
    "longcat_flash": config("longcat_flash", **_LONGCAT),
    "longcat_flash_ngram": config(
        "longcat_flash_ngram", ngram_vocab_size_ratio=2, emb_neighbor_num=3, emb_split_num=2, **_LONGCAT
    ),
    "baichuan_m1": config(
        "baichuan_m1",
        num_hidden_layers=4,
        sliding_window=WINDOW_TOKENS,
        sliding_window_layers=[0, 2],
        conv_window=2,
    ),
    "minimax_m3_vl": {
        "model_type": "minimax_m3_vl",
        "vocab_size": 320,
        "text_config": config(
            "minimax_m3",
            shared_intermediate_size=32,
            dense_intermediate_size=128,
            intermediate_size=32,
            moe_layer_freq=[0, 1],
            layer_types=["full_attention", "sparse_attention"],
            index_n_heads=2,
            index_head_dim=16,
            index_block_size=8,
            index_topk_blocks=WINDOW_TOKENS // 8,
        ),
    },
    # chunked attention, whose caches mlx_lm cannot merge
    "llama4": {"model_type": "llama4", "vocab_size": 320, "text_config": _CHUNKED},
    # caches of its own, which mlx_lm cannot merge
    "deepseek_v41": config(
        "deepseek_v41",
        num_hidden_layers=4,
        head_dim=32,
        o_groups=2,
        o_lora_rank=16,
        sliding_window=WINDOW_TOKENS,
        compress_ratios=[0, 1, 4, 4],
        kv_source_layer_ids=[1, 2],
        index_source_layer_ids=[1, 2],
        candidate_source_layer_id=2,
        candidate_topk_blocks=4,
        candidate_block_size=4,
        index_n_heads=2,
        index_head_dim=32,
        index_topk=8,
        hc_mult=2,
        hc_sinkhorn_iters=4,
        rms_norm_eps=1e-6,
        rope_scaling=None,
    ),
}
