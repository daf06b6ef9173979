"""All tiny models by name, and the types of mlx_lm that there are none of."""

from __future__ import annotations

import ast
from pathlib import Path

import mlx_lm.models

from tests.helpers.models import experts, hybrid, lists, mla, multimodal, plain, recurrent, rotating
from tests.helpers.models.base import Config

FAMILIES: dict[str, dict[str, Config]] = {
    "plain": plain.MODELS,
    "experts": experts.MODELS,
    "mla": mla.MODELS,
    "rotating": rotating.MODELS,
    "recurrent": recurrent.MODELS,
    "hybrid": hybrid.MODELS,
    "list": lists.MODELS,
    "multimodal": multimodal.MODELS,
}
"""By what their rows keep in the device."""
MODELS: dict[str, Config] = {name: model for family in FAMILIES.values() for name, model in family.items()}
"""By name: the model type, or that with a word for what is special."""

NOT_MADE = {
    "bitnet": "its layers are a Metal kernel: mlx_lm cannot run it on a CPU",
    "muse_spark": "its attention is a Metal kernel: mlx_lm cannot run it on a CPU",
    "olmo": "mlx_lm's module needs the package ai2-olmo, and ends the process without it",
}
"""Types of mlx_lm that cannot run where the tests do, and why."""


def mlx_lm_types() -> set[str]:
    """The modules of mlx_lm that are a model. They are read, not imported: one of them ends the process."""
    folder = Path(mlx_lm.models.__path__[0])
    return {path.stem for path in folder.glob("*.py") if "Model" in _classes(path)}


def _classes(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    return named | {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (alias.asname or alias.name) == "Model"
    }
