"""Whether a model folder asks for Python code of its own, in any of the files where it may."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_grpc.models.json_file import read_object

_FILES = (
    "config.json", "generation_config.json", "tokenizer_config.json", "processor_config.json",
    "preprocessor_config.json", "video_preprocessor_config.json", "feature_extractor_config.json",
)  # fmt: skip
_KEYS = ("model_file", "auto_map", "custom_generate")
"""mlx_lm runs the first; transformers the others."""


def own_code(folder: Path) -> str:
    """Where the folder asks for code, in a few words; empty where it does not. Raises ModelSourceError for a file that
    cannot be read."""
    for name in _FILES:
        if os.path.lexists(folder / name) and (what := asked_for(read_object(folder / name))):
            return f"{name}: {what}"
    return ""


def asked_for(config: Mapping[str, Any]) -> str:
    """The key that asks for code, at any depth, and what it says if that is short; empty for none."""
    waiting: list[Any] = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            for key in _KEYS:
                if part.get(key):
                    return f"{key} {str(part[key])[:100]!r}"
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return ""
