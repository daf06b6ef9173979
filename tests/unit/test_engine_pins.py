"""What the engine leans on and nobody promises."""

from __future__ import annotations

from importlib.metadata import version

from mlx_grpc.engine.batch import generator as batch


def test_mlx_lm_is_the_version_that_batch_was_written_for() -> None:
    """engine/batch/ gives models caches that have what mlx_lm's have, and reads private parts of those;
    engine/accel/ computes what its Llama does and takes its attention's place. When this
    fails, read what changed there, run tests/integration/test_worker_mlx.py and tests/unit/test_engine_*.py, and only
    then move MLX_LM_VERSION.
    """
    assert version("mlx-lm") == batch.MLX_LM_VERSION == "0.32.2"
