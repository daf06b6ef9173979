"""What `serve` cannot serve: one line that says what and what to do, and nothing half-written left. The exit code is 2
for what the command line and the environment ask for, 1 for what is found on the way."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.helpers.gguf import small_gguf
from tests.helpers.llama import make_llama
from tests.helpers.serve import script, started


def refuse(
    *arguments: str, code: int, largest_file_bytes: int | None = None, environment: dict[str, str] | None = None
) -> str:
    """The one line of a server that does not start."""
    with started(*arguments, largest_file_bytes=largest_file_bytes, environment=environment) as serve:
        assert serve.ended() == code, serve.errors
        assert serve.process.stdout is not None
        assert serve.process.stdout.read() == ""
        complaints = [line for line in serve.errors if line.startswith("mlx-grpc: ")]
        assert len(complaints) == 1, serve.errors
        assert not [line for line in serve.errors if "Traceback" in line]
        if code == 2:
            assert serve.errors == complaints, "nothing was begun"
    return complaints[0]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_llama(tmp_path_factory.mktemp("models") / "llama"))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--log-level", "loud"),
        ("--ready-file", "/nope/x"),
        ("--context-length", "0"),
        ("--context-length", "10000000"),
        ("--cors-origin", "foo"),
        ("--memory-limit-bytes", "1000"),
        ("--host", "not a host"),
        ("--grpc-socket", "/nope/s"),
        ("--tokens", "/nope/t"),
        ("--keepalive-seconds", "inf"),
    ],
)
def test_a_value_that_cannot_be(llama: str, flag: str, value: str) -> None:
    """Exit code 2 and one line that names the flag or its value, before anything is loaded."""
    line = refuse("--model", llama, flag, value, code=2)
    assert flag in line or value in line


def test_certificates_that_cannot_be_read(llama: str) -> None:
    """The file is named."""
    assert "/nope/c" in refuse("--model", llama, "--tls-cert", "/nope/c", "--tls-key", "/nope/k", code=2)


def test_a_variable_that_cannot_be(llama: str) -> None:
    """Its own name is said."""
    environment = {"MLX_GRPC_MAX_BATCH": "many"}
    assert "MLX_GRPC_MAX_BATCH" in refuse("--model", llama, environment=environment, code=2)


def test_a_model_without_room_for_one_short_request(llama: str) -> None:
    """What only loading can tell: it does not say SERVING, and the line has the numbers."""
    limit = str(Path(llama, "model.safetensors").stat().st_size + 4096)
    line = refuse("--model", llama, "--memory-limit-bytes", limit, code=1)
    assert limit in line
    assert "--memory-limit-bytes" in line


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    """The path is named."""
    assert "nowhere" in refuse("--model", str(tmp_path / "nowhere"), code=2)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    """What is missing from it is named."""
    (tmp_path / "notes.txt").write_text("not a model")
    assert "config.json" in refuse("--model", str(tmp_path), code=2)


def test_a_model_whose_engine_cannot_load_it() -> None:
    """The engine's own reason."""
    assert "torn" in refuse("--model", script(load_error="the weights are torn"), code=1)


def test_two_models_of_one_name() -> None:
    """Say so before anything is loaded."""
    assert "two models" in refuse("--model", script(), "--model", script(), code=2)


def test_a_port_in_use() -> None:
    """The flag that would help is named; grpc's own lines about it do not appear."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refuse("--model", script(), "--grpc-port", str(port), code=1)
    assert str(port) in line
    assert "--grpc-port" in line


def test_a_truncated_gguf(tmp_path: Path) -> None:
    """The file is named, and the cache holds no half of a model."""
    path, _ = small_gguf(tmp_path / "cut.gguf")
    path.write_bytes(path.read_bytes()[:-1000])
    cache = tmp_path / "cache"
    assert "cut.gguf" in refuse("--model", str(path), "--cache-dir", str(cache), code=2)
    assert not [found for found in cache.rglob("*") if found.is_file()]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """The cache is named, since another could be chosen."""
    path, _ = small_gguf(tmp_path / "small.gguf")
    (tmp_path / "file").write_text("in the way")
    assert "file" in refuse("--model", str(path), "--cache-dir", str(tmp_path / "file" / "cache"), code=2)


def test_a_disk_that_is_full_on_import(tmp_path: Path) -> None:
    """A limit on the size of files fails the write as a full disk does; nothing half-written is left."""
    path, _ = small_gguf(tmp_path / "small.gguf")
    cache = tmp_path / "cache"
    refuse("--model", str(path), "--cache-dir", str(cache), largest_file_bytes=4096, code=1)
    assert not [found for found in cache.rglob("*") if found.is_file() and found.stat().st_size > 0]
