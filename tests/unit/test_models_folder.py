"""What counts as a whole model folder."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_grpc.models.folder import FolderFacts, describe_folder
from mlx_grpc.models.sources import ModelSourceError


def _safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that has all that is looked at."""
    config = {"model_type": "llama", "max_position_embeddings": 128, "vocab_size": 300, "torch_dtype": "float16"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization": {"group_size": 32, "bits": 4}}))
    (tmp_path / "model.safetensors").write_bytes(_safetensors())
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def test_a_whole_folder_is_described(folder: Path) -> None:
    """The facts are those of the files."""
    assert describe_folder(folder) == FolderFacts("llama", 128, 300, "float16", 4, len(_safetensors()))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A missing folder is told apart from a wrong one."""
    with pytest.raises(ModelSourceError, match="does not exist"):
        describe_folder(tmp_path / "none")


def test_a_file_is_no_folder(folder: Path) -> None:
    """Somebody gave the file inside instead."""
    with pytest.raises(ModelSourceError, match="not a model folder"):
        describe_folder(folder / "config.json")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_each_needed_file_is_missed(folder: Path, name: str) -> None:
    """Without one of the three it is no model."""
    (folder / name).unlink()
    with pytest.raises(ModelSourceError, match=r"no (config|model|tokenizer)"):
        describe_folder(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_type": 3}'])
def test_a_config_without_a_model_type_is_refused(folder: Path, text: str) -> None:
    """Broken JSON, something that is no object, and an object that does not say what it is."""
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelSourceError, match=r"config\.json"):
        describe_folder(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(kept=st.integers(0, len(_safetensors()) - 1))
def test_truncated_weights_are_seen_wherever_they_end(folder: Path, kept: int) -> None:
    """A download that stopped is never taken for a model."""
    (folder / "model.safetensors").write_bytes(_safetensors()[:kept])
    with pytest.raises(ModelSourceError, match="cut short"):
        describe_folder(folder)


def test_a_shard_that_the_index_names_must_be_there(folder: Path) -> None:
    """The index lists two, one is there."""
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelSourceError, match=r"model-2\.safetensors"):
        describe_folder(folder)
