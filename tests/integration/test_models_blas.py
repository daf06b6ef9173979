"""OpenBLAS before MLX, in a process of its own: it must come before the first import of MLX."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_grpc.models.blas import load_openblas, usable_cpus

PRODUCT = """
import sys
from pathlib import Path
from mlx_grpc.models.blas import load_openblas
print(load_openblas(Path(sys.argv[1])))
import mlx.core as mx
a, b = mx.arange(12.0).reshape(3, 4), mx.arange(20.0).reshape(4, 5)
print((a @ b).tolist() == (a[:, :, None] * b[None, :, :]).sum(axis=1).tolist())
"""


CAN_COMPILE = sys.platform == "linux" and importlib.util.find_spec("scipy_openblas32") and shutil.which("cc")


@pytest.mark.skipif(sys.platform != "linux", reason="MLX for Linux CPUs only")
def test_products_are_right_with_whatever_was_loaded(tmp_path: Path) -> None:
    """One line is said, the same the second time, when what was compiled is there; and MLX still computes."""
    command = [sys.executable, "-c", PRODUCT, str(tmp_path)]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    note, right = first.splitlines()
    assert right == "True"
    assert second == first
    if CAN_COMPILE and note:  # no note: a CUDA build
        assert note.startswith("OpenBLAS loaded")


def test_it_never_raises_and_never_comes_too_late() -> None:
    """Where MLX is imported already it says so; elsewhere it says nothing."""
    import mlx.core  # noqa: F401

    assert load_openblas() in ("", "OpenBLAS was not loaded: MLX is already there")


def test_at_least_one_processor_is_usable() -> None:
    """Whatever the container says."""
    assert usable_cpus() >= 1
