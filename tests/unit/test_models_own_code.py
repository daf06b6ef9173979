"""Where a model folder may ask for Python code of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_grpc.models.own_code import asked_for, own_code
from mlx_grpc.models.sources import ModelSourceError

CLASSES = {"AutoConfig": "evil.Config"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"auto_map": CLASSES}),
        ("config.json", {"model_file": "evil.py"}),
        ("config.json", {"text_config": {"auto_map": CLASSES}}),
        ("config.json", {"parts": [{"deep": {"auto_map": CLASSES}}]}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
        ("processor_config.json", {"auto_map": {"AutoProcessor": "evil.Processor"}}),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "evil.Processor"}}),
        ("generation_config.json", {"custom_generate": "evil.py"}),
    ],
)
def test_it_is_found_wherever_it_stands(tmp_path: Path, name: str, content: dict[str, Any]) -> None:
    """The file and the key are named."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(json.dumps(content))
    assert own_code(tmp_path).startswith(f"{name}: ")


@pytest.mark.parametrize("nothing", [{}, {"auto_map": {}}, {"auto_map": None}, {"model_file": ""}, {"map": CLASSES}])
def test_an_empty_wish_is_none(nothing: dict[str, Any]) -> None:
    """Some folders have the key and nothing in it."""
    assert asked_for(nothing) == ""


def test_a_file_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    """It might ask for code in a way that another reader understands."""
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": ')
    with pytest.raises(ModelSourceError, match="tokenizer_config"):
        own_code(tmp_path)
