"""From what `Load` asks for to an engine. MLX is imported only for a real model."""

from __future__ import annotations

from mlx_grpc.engine.backend import set_defaults
from mlx_grpc.engine.messages import Load
from mlx_grpc.engine.protocol import Engine

SCRIPT_PREFIX = "script:"


def open_engine(load: Load) -> Engine:
    """The engine that the path asks for. MLX is imported only for a real model."""
    if load.path.startswith(SCRIPT_PREFIX):
        from mlx_grpc.engine.scripted.engine import open_scripted

        return open_scripted(load)
    from mlx_grpc.engine.accel.cpu.blas import load_openblas

    set_defaults()
    note = load_openblas()  # before MLX, which would take the slow reference BLAS
    from mlx_grpc.engine.mlx_engine import open_mlx

    return open_mlx(load, [note])
