"""Kernels that MLX compiles are loaded from a folder that is this user's alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.llama import make_llama
from tests.helpers.rpc import Request, in_loop, serving

SOMEBODY = 12_345
COMPILES = """
from mlx_grpc.engine.accel.temporary_folder import use_private_temporary_folder
use_private_temporary_folder()
import mlx.core as mx
import tempfile
assert mx.compile(lambda x: mx.exp(x) * 2 + 1)(mx.zeros(8)).tolist() == [3.0] * 8
print(tempfile.gettempdir())
"""
cpu_only = pytest.mark.skipif(sys.platform != "linux", reason="MLX compiles kernels with the C compiler on Linux CPUs")


def compiled_in(cache: Path, shared: Path) -> Path:
    """Where a process kept its temporary files that has had MLX compile a kernel."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "TMPDIR": str(shared)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILES], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return Path(done.stdout.strip())


@cpu_only
def test_mlx_compiles_into_a_private_folder(tmp_path: Path) -> None:
    """Nothing is written to, or read from, the folder that everybody may write to."""
    shared = tmp_path / "shared"
    shared.mkdir()
    folder = compiled_in(tmp_path / "cache", shared)
    assert folder == tmp_path / "cache" / "mlx-grpc" / "tmp"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.rglob("*.so"))
    assert not list(shared.iterdir())


@cpu_only
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    """A folder for this process alone is made instead, and removed at its end."""
    shared = tmp_path / "shared"
    shared.mkdir()
    planted = tmp_path / "cache" / "mlx-grpc" / "tmp"
    planted.mkdir(parents=True)
    os.chown(planted, SOMEBODY, SOMEBODY)
    folder = compiled_in(tmp_path / "cache", shared)
    assert folder.parent == shared
    assert not list(shared.iterdir())
    assert not list(planted.iterdir())


@cpu_only
@in_loop
async def test_an_engines_process_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a server, with a real model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make_llama(tmp_path / "model")
    async with serving(model=(f"m={folder}",), engine="process") as (_, api):
        await api.answer(Request(prompt="The capital", stop={"max_tokens": 2}))
    assert list((tmp_path / "cache" / "mlx-grpc" / "tmp").rglob("*.so"))
