"""The text part of a model that has eyes or ears too.

mlx_lm loads many such folders itself, in the layouts that its authors had. For others the language model is built from
the part of config.json that describes it, and gets the weights that are its own by name, whatever they are nested in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.utils
from mlx.nn.layers.base import Module
from mlx.utils import tree_flatten

from mlx_grpc.models.config_check import TEXT_SECTIONS

SECTIONS = TEXT_SECTIONS
SHARED_KEYS = ("tie_word_embeddings", "vocab_size", "max_position_embeddings", "eos_token_id")
"""What a section may leave to the whole."""
NESTS = ("language_model", "text_model", "llm")
"""What weights of a language model are nested in, besides `model`."""
PARTS = (".weight", ".scales", ".biases", ".bias")


def text_section(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration of the language model alone; None where there is no part of that kind."""
    for name in SECTIONS:
        section = config.get(name)
        if isinstance(section, dict) and isinstance(section.get("model_type"), str):
            shared = {key: config[key] for key in SHARED_KEYS if key in config}
            return {**shared, **section}
    return None


def load_text_part(folder: Path, config: Mapping[str, Any], section: dict[str, Any]) -> tuple[Module, dict[str, Any]]:
    """The language model of the folder; its weights are not read yet. Raises what mlx_lm raises."""
    kind, arguments = mlx_lm.utils._get_classes(section)
    parameters = dict(tree_flatten(kind(arguments.from_dict(section)).parameters()))

    class Part(kind):  # type: ignore[misc,valid-type]
        """The language model, given the weights of the whole."""

        def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
            own = dict(own_weights(weights.items(), set(parameters)))
            sanitize = getattr(super(), "sanitize", None)
            sanitized: dict[str, mx.array] = sanitize(own) if sanitize else own
            return sanitized

    class Arguments(arguments):  # type: ignore[misc,valid-type]
        """Those of the section."""

        @classmethod
        def from_dict(cls, _: dict[str, Any]) -> Any:
            return arguments.from_dict(section)

    quantization = {
        key: own_quantization(config[key])
        for key in ("quantization", "quantization_config")
        if isinstance(config.get(key), dict)
    }
    network, loaded = mlx_lm.utils.load_model(
        folder, lazy=True, model_config=quantization, get_model_classes=lambda config: (Part, Arguments)
    )
    network.__class__ = kind  # nothing is left to tell it from a model that was saved alone
    return network, loaded


def own_weights(weights: Iterable[tuple[str, mx.array]], names: set[str]) -> Iterator[tuple[str, mx.array]]:
    """Those of the language model, under the names that it gives them. Names of one that mlx_lm renames are kept."""
    for name, array in weights:
        own = own_name(name)
        if _is_known(own, names) or _is_nested(name):
            yield own, array


def own_quantization(quantization: Mapping[str, Any]) -> dict[str, Any]:
    """How layers are packed, under their own names."""
    return {own_name(name) if "." in name else name: value for name, value in quantization.items()}


def own_name(name: str) -> str:
    """`model.language_model.layers.0…` and `language_model.model.layers.0…` are both `model.layers.0…`."""
    parts = name.split(".")
    nests = [place for place, part in enumerate(parts[:2]) if part in NESTS]
    if not nests:
        return name
    rest = parts[nests[0] + 1 :]
    return ".".join(rest if rest[0] in ("model", "lm_head") else ["model", *rest])


def _is_nested(name: str) -> bool:
    return any(part in NESTS for part in name.split(".")[:2])


def _is_known(name: str, names: set[str]) -> bool:
    if name in names:
        return True
    path = next((name.removesuffix(part) for part in PARTS if name.endswith(part)), name)
    return f"{path}.weight" in names
