"""Folders of models with eyes or ears serve their text part, in the layouts that people have them in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn.layers.quantized as packed
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model as load_with_mlx_lm

from mlx_grpc.engine.loading.model import load_model
from mlx_grpc.engine.messages import Load
from tests.helpers.llama import make_llama

Rename = Callable[[str], str]
VISION = "vision_tower.encoder.layers.0.weight"


def nested_in_model(name: str) -> str:
    """As transformers saves them now: `model.language_model.…`, and `lm_head` outside."""
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def nested_outside(name: str) -> str:
    """As converters for MLX save them: `language_model.model.…`."""
    return f"language_model.{name}"


def nested_as_text_model(name: str) -> str:
    """As Idefics and SmolVLM have them: `model.text_model.…`."""
    return name.replace("model.", "model.text_model.", 1) if name.startswith("model.") else name


def whole(text: Path, folder: Path, kind: str, rename: Rename, vision: str, section: str = "text_config") -> Path:
    """A folder of a model with eyes around this one."""
    folder.mkdir()
    config = json.loads((text / "config.json").read_text())
    outside = {"model_type": kind, section: config, "vision_config": {"hidden_size": 8}}
    (folder / "config.json").write_text(json.dumps(outside))
    weights = {rename(name): array for name, array in mx.load(str(text / "model.safetensors")).items()}  # type: ignore[union-attr]
    weights[vision] = mx.zeros((4, 4))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


def logits(network: Any) -> mx.array:
    found: mx.array = network(mx.array([[5, 6, 7, 8]]))
    return found


QWEN: dict[str, Any] = {"model_type": "qwen3", "head_dim": 16, "rope_theta": 1e4}
GEMMA: dict[str, Any] = {"model_type": "gemma3_text", "head_dim": 16, "sliding_window": 16, "sliding_window_pattern": 2}


@pytest.mark.parametrize(
    ("kind", "rename", "vision", "section", "config"),
    [
        ("mistral3", nested_outside, VISION, "text_config", {}),
        ("qwen3_vl", nested_in_model, "model.visual.blocks.0.weight", "text_config", QWEN),
        ("gemma3", nested_outside, VISION, "text_config", GEMMA),
        ("gemma3", nested_in_model, f"model.{VISION}", "text_config", GEMMA),
        ("smolvlm", nested_as_text_model, "model.vision_model.weight", "text_config", {}),
        ("internvl_chat", nested_outside, "vision_model.weight", "llm_config", {}),
        ("lfm2_vl", nested_in_model, f"model.{VISION}", "text_config", {"model_type": "qwen2"}),
    ],
)  # fmt: skip
def test_the_text_part_is_loaded(
    tmp_path: Path, kind: str, rename: Rename, vision: str, section: str, config: dict[str, Any]
) -> None:
    """The same logits as the language model alone, whether mlx_lm knows the whole or not."""
    text = make_llama(tmp_path / "text", **config)
    folder = whole(text, tmp_path / "whole", kind, rename, vision, section)
    model = load_model(Load(str(folder), max_rows=4))
    expected, _ = load_with_mlx_lm(text)
    assert mx.allclose(logits(model.network), logits(expected), rtol=1e-4, atol=1e-4)
    assert model.loaded.batching == "PADDED"
    assert model.loaded.context_length == 512
    assert model.loaded.eos_ids


def test_packed_layers_keep_their_settings(tmp_path: Path) -> None:
    """Each layer's own bits are named with the nesting, too."""
    text = make_llama(tmp_path / "text")
    network, config = load_with_mlx_lm(text)
    lm_head = {"group_size": 32, "bits": 8}
    packed.quantize(
        network,
        32,
        4,
        class_predicate=lambda path, layer: lm_head if path == "lm_head" else hasattr(layer, "to_quantized"),
    )
    weights = dict(tree_flatten(network.parameters()))
    mx.save_safetensors(str(text / "model.safetensors"), weights, {"format": "mlx"})
    expected = logits(network)
    folder = whole(text, tmp_path / "whole", "smolvlm", nested_outside, "vision_model.weight")
    outside = json.loads((folder / "config.json").read_text())
    outside["quantization"] = {"group_size": 32, "bits": 4, "language_model.lm_head": lm_head}
    (folder / "config.json").write_text(json.dumps(outside))
    model = load_model(Load(str(folder), max_rows=4))
    assert config["model_type"] == "llama"
    assert mx.allclose(logits(model.network), expected, rtol=1e-3, atol=1e-3)


def test_a_text_part_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    """With the name of the type that mlx_lm does not know."""
    text = make_llama(tmp_path / "text")
    folder = whole(text, tmp_path / "whole", "smolvlm", nested_outside, "vision_model.weight")
    outside = json.loads((folder / "config.json").read_text())
    outside["text_config"]["model_type"] = "nobody_knows"
    (folder / "config.json").write_text(json.dumps(outside))
    with pytest.raises(Exception, match="smolvlm"):
        load_model(Load(str(folder), max_rows=4))
