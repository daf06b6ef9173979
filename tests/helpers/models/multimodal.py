"""Multimodal types, whose folders nest a text model that stands in another table: mlx_lm loads that part alone."""

from __future__ import annotations

from tests.helpers.models import experts, mla, plain, rotating
from tests.helpers.models.base import Config, around, config
from tests.helpers.models.hybrid import LFM2
from tests.helpers.models.rotating import GEMMA3N

MODELS: dict[str, Config] = {
    "qwen2_vl": around("qwen2_vl", plain.MODELS["qwen2"]),
    "qwen3_vl": around("qwen3_vl", plain.MODELS["qwen3"]),
    "qwen3_vl_moe": around("qwen3_vl_moe", experts.MODELS["qwen3_moe"]),
    "mistral3": around("mistral3", plain.MODELS["mistral"]),
    "pixtral": around("pixtral", plain.MODELS["llama"]),
    "kimi_vl": around("kimi_vl", mla.MODELS["deepseek_v3"]),
    "kimi_k25": around("kimi_k25", mla.MODELS["deepseek_v3"]),
    "lfm2-vl": around("lfm2-vl", LFM2),
    "gemma3": around("gemma3", rotating.MODELS["gemma3_text"]),
    "gemma3n": around(
        "gemma3n",
        config(
            "gemma3n_text",
            rope_local_base_freq=10000.0,
            final_logit_softcapping=30.0,
            activation_sparsity_pattern=[0.5, 0.0, 0.0, 0.0, 0.0, 0.0],
            altup_num_inputs=2,
            altup_coef_clip=120.0,
            altup_correct_scale=True,
            altup_active_idx=0,
            laurel_rank=8,
            **GEMMA3N,
        ),
    ),
    "gemma4": around("gemma4", rotating.MODELS["gemma4_text"]),
}
