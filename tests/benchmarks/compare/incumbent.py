"""mlx_lm.server with OpenBLAS loaded first, as our engine has it; takes its arguments. Child of `compare`."""

from __future__ import annotations

from mlx_grpc.engine.accel.cpu.blas import load_openblas


def main() -> None:
    """As `python -m mlx_lm server`."""
    load_openblas()
    from mlx_lm.server import main as serve

    serve()


if __name__ == "__main__":
    main()
