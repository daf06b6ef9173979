"""Types with multi-head latent attention, which keep a compressed part in place of keys and values."""

from __future__ import annotations

from tests.helpers.models.base import YARN, Config, config, longrope

MODELS: dict[str, Config] = {
    "deepseek_v2": config("deepseek_v2", topk_method="greedy", first_k_dense_replace=1, rope_scaling=YARN),
    "deepseek_v3": config("deepseek_v3", first_k_dense_replace=1, rope_scaling=None),
    "glm4_moe_lite": config("glm4_moe_lite", first_k_dense_replace=1, rope_scaling=None),
    "mistral4": config("mistral4", rope_parameters={**YARN, "rope_theta": 10000.0, "llama_4_scaling_beta": 0.1}),
    "minicpm3": config("minicpm3", dim_model_base=64, scale_depth=1.4, scale_emb=1.0, rope_scaling=longrope(8)),
    "youtu_llm": config("youtu_llm"),
}
