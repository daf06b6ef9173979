"""What the worker says to folders that it cannot serve: one line, and never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_grpc.engine.loading.model import load_model
from mlx_grpc.engine.messages import Load
from mlx_grpc.engine.protocol import LoadError
from tests.helpers.llama import make_llama


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good model, to be broken."""
    return make_llama(tmp_path / "model")


def reason(folder: Path) -> str:
    """Why the folder is not loaded."""
    with pytest.raises(LoadError) as failure:
        load_model(Load(str(folder), max_rows=1))
    text = str(failure.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def change(folder: Path, **config: object) -> None:
    """Change keys of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    """It is no model folder."""
    assert "config.json" in reason(tmp_path)


def test_a_config_that_is_no_json(folder: Path) -> None:
    """Named as such."""
    (folder / "config.json").write_text("{")
    assert "not valid JSON" in reason(folder)


def test_a_config_that_is_no_object(folder: Path) -> None:
    """One line, whatever mlx_lm makes of it."""
    (folder / "config.json").write_text("[]")
    reason(folder)


def test_no_weights(folder: Path) -> None:
    """The pattern that was looked for is named."""
    (folder / "model.safetensors").unlink()
    assert "model*.safetensors" in reason(folder)


def test_truncated_weights(folder: Path) -> None:
    """A download that was cut off."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    reason(folder)


def test_an_unknown_architecture(folder: Path) -> None:
    """mlx_lm's word for it is kept."""
    change(folder, model_type="nobody_knows")
    assert "nobody_knows" in reason(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    """Config and weights do not agree."""
    change(folder, hidden_size=32)
    reason(folder)


def test_remote_code_is_not_run_unless_allowed(folder: Path) -> None:
    """The model's own Python file is refused, and nothing of it runs."""
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    change(folder, model_file="evil.py")
    assert "evil.py" in reason(folder)
    assert not (folder / "ran").exists()


def test_a_cache_that_cannot_be_batched_runs_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time, and the kind of cache is named."""
    from mlx_lm.models.cache import ChunkedKVCache
    from mlx_lm.models.llama import Model

    monkeypatch.setattr(Model, "make_cache", lambda _: [ChunkedKVCache(8), ChunkedKVCache(8)])
    loaded = load_model(Load(str(folder), max_rows=8)).loaded
    assert (loaded.batching, loaded.max_rows) == ("ALONE", 1)
    assert "ChunkedKVCache" in " ".join(loaded.notes)


def test_half_precision_becomes_float32_on_a_cpu(folder: Path) -> None:
    """As all floating weights do there."""
    if mx.default_device().type != mx.DeviceType.cpu:
        pytest.skip("a GPU keeps the model's own type")
    path = str(folder / "model.safetensors")
    weights = {name: array.astype(mx.bfloat16) for name, array in mx.load(path).items()}  # type: ignore[union-attr]
    mx.save_safetensors(path, weights)
    loaded = load_model(Load(str(folder), max_rows=1)).loaded
    assert (loaded.dtype, loaded.reproducible) == ("float32", True)


def test_the_memory_limit_is_what_the_model_may_use(folder: Path) -> None:
    """A limit below the device's own is reported, and set in MLX."""
    before, cache_before = mx.get_memory_limit(), mx.set_cache_limit(1 << 30)
    try:
        loaded = load_model(Load(str(folder), max_rows=1, memory_limit_bytes=1 << 28)).loaded
        assert loaded.memory_bytes == mx.get_memory_limit() == 1 << 28
    finally:
        mx.set_memory_limit(before)
        mx.set_cache_limit(cache_before)


def test_end_tokens_and_context_are_found_where_models_put_them(folder: Path) -> None:
    """Several end tokens of generation_config.json; a context length nested under text_config."""
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    config["text_config"] = {"max_position_embeddings": 77}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    loaded = load_model(Load(str(folder), max_rows=1)).loaded
    assert (loaded.context_length, loaded.eos_ids) == (77, [1, 2])
