"""What the settings name on this machine, looked at before anything listens or loads."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_grpc import preflight
from mlx_grpc.config import ConfigError, load_config
from mlx_grpc.listening import AddressInUse, ListenError
from mlx_grpc.models.fetch import resolve
from mlx_grpc.models.sources import GgufFile, ModelSourceError, NamedSource
from mlx_grpc.service.hosting.sources import model_source
from tests.helpers.gguf import small_gguf
from tests.helpers.hub import cached_on_hub
from tests.helpers.llama import CONTEXT_LENGTH, make_llama

not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A path short enough for a socket, wherever pytest keeps its own."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def found(**flags: Any) -> str:
    """What is wrong with these settings, in one line."""
    with pytest.raises((ConfigError, ListenError)) as caught:
        preflight.check(load_config(**{"model": ("script:{}",), **flags}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_good_settings_pass(llama: Path, tmp_path: Path) -> None:
    """Nothing is made, and nothing is left listening."""
    flags: dict[str, Any] = {
        "model": (f"a={llama}", f"org/b={llama}", "script:{}"),
        "ready_file": tmp_path / "ready",
        "cache_dir": tmp_path / "cache",
        "context_length": CONTEXT_LENGTH,
        "memory_limit_bytes": 1 << 30,
        "admin_host": "localhost",
    }
    before = sorted(tmp_path.iterdir())
    preflight.check(load_config(**flags))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("host", ["not a host", "127.0.0.1:50051", "300.1.1.1", "a..b", "192.0.2.1"])
@pytest.mark.parametrize("flag", ["host", "admin_host"])
def test_a_host_that_is_none_of_this_machine(flag: str, host: str) -> None:
    """The flag and the host are named. 192.0.2.1 is nobody's address."""
    line = found(**{flag: host})
    assert line.startswith(f"--{flag.replace('_', '-')}: ")
    assert host in line


def test_a_socket_in_a_folder_that_is_not_there(socket_folder: Path) -> None:
    """The folder is named."""
    assert "--grpc-socket" in found(grpc_socket=socket_folder / "none" / "s")


def test_a_socket_path_that_is_too_long() -> None:
    """The system would only say that it is invalid."""
    assert "at most 103" in found(grpc_socket=Path("/tmp") / ("s" * 120))


def test_a_socket_where_a_file_lies(socket_folder: Path) -> None:
    """It is not removed."""
    path = socket_folder / "notes"
    path.write_text("mine")
    assert "not a socket" in found(grpc_socket=path)
    assert path.read_text() == "mine"


def test_a_socket_where_another_server_listens(socket_folder: Path) -> None:
    """Its place is not taken; one that nobody listens at any more is."""
    path = socket_folder / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(AddressInUse, match="another server"):
            preflight.check(load_config(model=("script:{}",), grpc_socket=path))
    preflight.check(load_config(model=("script:{}",), grpc_socket=path))


def test_a_ready_file_that_cannot_be_written(tmp_path: Path) -> None:
    """In a folder that is not there, or where a folder is."""
    assert "no folder" in found(ready_file=tmp_path / "none" / "ready")
    assert "is a folder" in found(ready_file=tmp_path)


@not_root
def test_folders_that_may_not_be_written_to(tmp_path: Path, socket_folder: Path) -> None:
    """For the ready file, the socket and an import."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    for folder in (tmp_path, socket_folder):
        folder.chmod(0o500)
    assert "--ready-file" in found(ready_file=tmp_path / "ready")
    assert "--grpc-socket" in found(grpc_socket=socket_folder / "s")
    assert "--cache-dir" in found(model=(str(gguf),), cache_dir=tmp_path / "cache")
    for folder in (tmp_path, socket_folder):
        folder.chmod(0o700)


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    """Whether anything would be stored there or not."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    assert "--cache-dir" in found(cache_dir=gguf)
    assert "--cache-dir" in found(model=(str(gguf),), cache_dir=gguf / "cache")


@pytest.mark.parametrize(
    "model", ["/nowhere", "./none.gguf", "gpt2", "a/b/c", "my name=script:{}", "=script:{}", "/dev/null", "."]
)
def test_a_model_that_cannot_be(model: str) -> None:
    """--model is named."""
    assert found(model=(model,)).startswith("--model: ")


def test_two_models_of_one_name(llama: Path) -> None:
    """By their names or by those that they get from their sources."""
    assert "two models named a" in found(model=(f"a={llama}", "a=script:{}"))
    assert "two models named llama" in found(model=(str(llama), f"llama={llama}"))


def test_a_context_above_the_models_own(llama: Path) -> None:
    """A mistake where it is above each model's; where only above some, it is a limit for the others."""
    small = make_llama(llama.parent / "small", max_position_embeddings=64)
    line = found(model=(f"a={llama}",), context_length=CONTEXT_LENGTH + 1)
    assert "--context-length" in line
    assert str(CONTEXT_LENGTH) in line
    assert "--context-length" in found(model=(str(llama), str(small)), context_length=10_000_000)
    preflight.check(load_config(model=(str(llama), str(small)), context_length=100))


def test_a_context_above_that_of_a_gguf(tmp_path: Path) -> None:
    """Read from its metadata; nothing is imported for that."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    flags: dict[str, Any] = {"model": (str(gguf),), "cache_dir": tmp_path / "cache"}
    assert "128" in found(**flags, context_length=129)
    preflight.check(load_config(**flags, context_length=128))
    assert not (tmp_path / "cache").exists()


def test_a_context_above_that_of_a_cached_model(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Hugging Face's cache, which is not asked to fetch anything."""
    from huggingface_hub import constants

    (tmp_path / "hub").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached_on_hub(tmp_path / "hub", "org/tiny", llama)
    assert "--context-length" in found(model=("org/tiny",), context_length=10_000)
    preflight.check(load_config(model=("org/other",), context_length=10_000))


def test_a_context_that_is_known_only_after_fetching(llama: Path) -> None:
    """Then the model fails, before an engine is started for it."""
    source = preflight.with_context(model_source(str(llama), None), CONTEXT_LENGTH + 1)
    with pytest.raises(ModelSourceError, match="--context-length"):
        source.locate()
    assert preflight.with_context(model_source(str(llama), None), 5).locate().path == str(llama)


def test_a_memory_limit_below_the_weights(llama: Path) -> None:
    """Of all models together, for they share it."""
    weights_bytes = (llama / "model.safetensors").stat().st_size
    assert "--memory-limit-bytes" in found(model=(str(llama),), memory_limit_bytes=1000)
    models = (f"a={llama}", f"b={llama}")
    assert "--memory-limit-bytes" in found(model=models, memory_limit_bytes=2 * weights_bytes)
    preflight.check(load_config(model=(f"a={llama}",), memory_limit_bytes=2 * weights_bytes))


def test_weights_that_are_not_all_loaded_refuse_nothing(llama: Path, tmp_path: Path) -> None:
    """Of a multimodal folder the text part is loaded; how much that is, is not known before."""
    folder = make_llama(tmp_path / "llava")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": config}))
    preflight.check(load_config(model=(str(folder),), memory_limit_bytes=1000))


def test_an_imported_model_is_known_by_its_name(tmp_path: Path) -> None:
    """And its facts as those of a folder."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    imported = resolve(NamedSource(GgufFile(gguf)), tmp_path / "cache").folder.name
    flags: dict[str, Any] = {"model": (imported,), "cache_dir": tmp_path / "cache"}
    preflight.check(load_config(**flags))
    assert "--context-length" in found(**flags, context_length=129)
