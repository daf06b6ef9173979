"""Types whose only memory is a state of one size, whatever the length."""

from __future__ import annotations

from tests.helpers.models.base import Config, config

MODELS: dict[str, Config] = {
    "mamba": config("mamba", time_step_rank=4),
    "mamba2": config("mamba2", num_heads=8, n_groups=1, time_step_rank=4, time_step_limit=[0.0, 100.0], expand=2),
    "rwkv7": config("rwkv7", a_low_rank_dim=8, v_low_rank_dim=8, gate_low_rank_dim=8, decay_low_rank_dim=8),
}
