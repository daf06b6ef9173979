"""What `serve` cannot serve: one line that says what and what to do, exit code 1, and nothing half-written left."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.helpers.gguf import small_gguf
from tests.helpers.serve import script, started


def refuse(*arguments: str, largest_file_bytes: int | None = None) -> str:
    """The one line of a server that does not start."""
    with started(*arguments, largest_file_bytes=largest_file_bytes) as serve:
        assert serve.ended() == 1, serve.errors
        assert serve.process.stdout is not None
        assert serve.process.stdout.read() == ""
        complaints = [line for line in serve.errors if line.startswith("mlx-grpc: ")]
        assert len(complaints) == 1, serve.errors
        assert not [line for line in serve.errors if "Traceback" in line]
    return complaints[0]


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    """The path is named."""
    assert "nowhere" in refuse("--model", str(tmp_path / "nowhere"))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    """What is missing from it is named."""
    (tmp_path / "notes.txt").write_text("not a model")
    assert "config.json" in refuse("--model", str(tmp_path))


def test_a_model_whose_engine_cannot_load_it() -> None:
    """The engine's own reason."""
    assert "torn" in refuse("--model", script(load_error="the weights are torn"))


def test_two_models_of_one_name() -> None:
    """Say so before anything is loaded."""
    assert "two models" in refuse("--model", script(), "--model", script())


def test_a_port_in_use() -> None:
    """The flag that would help is named; grpc's own lines about it do not appear."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refuse("--model", script(), "--grpc-port", str(port))
    assert str(port) in line
    assert "--grpc-port" in line


def test_a_truncated_gguf(tmp_path: Path) -> None:
    """The file is named, and the cache holds no half of a model."""
    path, _ = small_gguf(tmp_path / "cut.gguf")
    path.write_bytes(path.read_bytes()[:-1000])
    cache = tmp_path / "cache"
    assert "cut.gguf" in refuse("--model", str(path), "--cache-dir", str(cache))
    assert not [found for found in cache.rglob("*") if found.is_file()]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """The cache is named, since another could be chosen."""
    path, _ = small_gguf(tmp_path / "small.gguf")
    (tmp_path / "file").write_text("in the way")
    assert "file" in refuse("--model", str(path), "--cache-dir", str(tmp_path / "file" / "cache"))


def test_a_disk_that_is_full_on_import(tmp_path: Path) -> None:
    """A limit on the size of files fails the write as a full disk does; nothing half-written is left."""
    path, _ = small_gguf(tmp_path / "small.gguf")
    cache = tmp_path / "cache"
    refuse("--model", str(path), "--cache-dir", str(cache), largest_file_bytes=4096)
    assert not [found for found in cache.rglob("*") if found.is_file() and found.stat().st_size > 0]
