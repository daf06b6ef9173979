"""OpenBLAS before MLX, in a process of its own: it must come before the first import of MLX."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_grpc.engine.accel.cpu.blas import load_openblas, usable_cpus

PRODUCT = """
import sys
from pathlib import Path
from mlx_grpc.engine.accel.cpu.blas import load_openblas
print(load_openblas(Path(sys.argv[1])))
import mlx.core as mx
a, b = mx.arange(12.0).reshape(3, 4), mx.arange(20.0).reshape(4, 5)
print((a @ b).tolist() == (a[:, :, None] * b[None, :, :]).sum(axis=1).tolist())
"""

FEW_ROWS = """
import sys
from pathlib import Path
from mlx_grpc.engine.accel.cpu.blas import load_openblas
load_openblas(Path(sys.argv[1]))
import mlx.core as mx
import numpy as np
random = np.random.default_rng(1)
for _ in range(300):
    rows, outputs, inputs = random.integers(1, 40), random.integers(1, 70), random.integers(1, 90)
    x = random.standard_normal((rows, inputs)).astype(np.float32)
    w = random.standard_normal((outputs, inputs)).astype(np.float32)
    product = np.array(mx.array(x) @ mx.array(w).T)
    exact = x.astype(np.float64) @ w.T.astype(np.float64)
    assert np.abs(product - exact).max() <= 1e-5 * np.sqrt(inputs), (rows, outputs, inputs)
    if rows <= 32:
        place = random.integers(rows)
        alone = np.array(mx.array(x[place : place + 1]) @ mx.array(w).T)
        assert (alone[0] == product[place]).all(), (rows, outputs, inputs, place)
"""
THREADS = """
import ctypes, sys
from pathlib import Path
from mlx_grpc.engine.accel.cpu import blas
blas.load_openblas(Path(sys.argv[1]))
library = ctypes.CDLL(str(blas._packaged_library()))
def count():
    threads = library.scipy_openblas_get_num_threads()
    assert threads == blas.product_threads()
    return threads
found = [count()]
with blas.every_processor():
    found.append(count())
print(*found, count(), max(1, blas.usable_cpus() - 1), blas.usable_cpus())
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


@pytest.mark.skipif(not CAN_COMPILE, reason="the product is compiled with the C compiler, on top of scipy-openblas32")
def test_products_of_few_rows_are_right_and_the_same_in_any_company(tmp_path: Path) -> None:
    """With one thread, a row's products are bit for bit those that it has alone, whatever the shapes."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FEW_ROWS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not CAN_COMPILE, reason="OpenBLAS's threads are set in scipy-openblas32 alone")
@pytest.mark.parametrize("chosen", [None, "1"])
def test_a_long_product_gets_all_processors_unless_somebody_chose(tmp_path: Path, chosen: str | None) -> None:
    """One fewer than there are before the block and after it."""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    command = [sys.executable, "-c", THREADS, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment | ({"OPENBLAS_NUM_THREADS": chosen} if chosen else {})
    )
    before, inside, after, usual, most = done.stdout.split()
    assert (before, inside, after) == ((chosen,) * 3 if chosen else (usual, most, usual))


def test_it_never_raises_and_never_comes_too_late() -> None:
    """Where MLX is imported already it says so; elsewhere it says nothing."""
    import mlx.core  # noqa: F401

    assert load_openblas() in ("", "OpenBLAS was not loaded: MLX is already there")


def test_at_least_one_processor_is_usable() -> None:
    """Whatever the container says."""
    assert usable_cpus() >= 1
