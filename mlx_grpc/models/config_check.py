"""Holds a model's config.json against the table of ranges, and against the weights that are there. Pure.

So a file of some bytes cannot have the engine build a network of any size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlx_grpc.models.config_ranges import MOST_DEPTH, MOST_LAYERS, RangeError, value_problem
from mlx_grpc.models.weights_header import WeightFacts

TEXT_SECTIONS = ("text_config", "llm_config", "language_config")
"""Where config.json nests the language model."""
_TYPE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LAYER_LISTS = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types", "hybrid_override_pattern")
_LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_WIDTHS = ("hidden_size", "n_embd", "d_model", "model_dim", "dim")
_HEAD_WIDTH = re.compile("head_dim|head_size|kv_channels|d_head")
_MOST_NEXT_LAYERS = 64
"""Layers that predict further tokens may be listed after the others."""
_SLACK = 4
"""How many times more weights a config may announce than the files hold: some of its parts may be left out of them."""


def check_config(config: Mapping[str, Any]) -> None:
    """Raises RangeError for the first field that is out of its range, or does not fit the others."""
    for path, value in _fields(config):
        inside = len(path) > 1 and path[0] not in TEXT_SECTIONS
        if problem := value_problem(path[-1], value, inside):
            raise RangeError(_named(path), problem)
    for path, section in sections(config):
        _check_type(path, section)
        _check_heads(path, section)
        _check_layers(path, section)


def check_against_weights(config: Mapping[str, Any], weights: WeightFacts) -> None:
    """Raises RangeError where the config announces a network that these weights cannot fill. Every layer has at least
    one tensor, and every vocabulary a row of the network's width for each token."""
    for path, section in sections(config):
        whole = {**config, **section}
        layers, width = _first(section, _LAYER_COUNTS), _first(whole, _WIDTHS)
        if layers[1] > weights.tensors:
            raise RangeError(
                _named((*path, layers[0])), f"is {layers[1]}, and the files hold {weights.tensors} tensors"
            )
        for name in _LAYER_LISTS:
            if isinstance(listed := section.get(name), (list, str)) and len(listed) > weights.tensors:
                raise RangeError(_named((*path, name)), f"has {len(listed)} entries for {weights.tensors} tensors")
        if width[1] > _SLACK * weights.largest_dimension:
            raise RangeError(_named((*path, width[0])), f"is {width[1]}, and no tensor in the files is as wide")
        for name, count in (layers, ("vocab_size", _whole(whole.get("vocab_size")))):
            if count * width[1] > _SLACK * weights.most_weights:
                raise RangeError(_named((*path, name)), f"is {count}, for which the files hold too few weights")


def sections(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """The config itself and its text part, with their paths."""
    yield (), config
    for name in TEXT_SECTIONS:
        if isinstance(section := config.get(name), Mapping):
            yield (name,), section


def _fields(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All fields at any depth, with their paths. Raises RangeError for too deep a one."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((name,), value) for name, value in config.items()]
    while waiting:
        path, value = waiting.pop()
        yield path, value
        if len(path) > MOST_DEPTH:
            raise RangeError(_named(path[:4]), f"is nested more than {MOST_DEPTH} deep")
        if isinstance(value, Mapping):
            waiting += [((*path, name), part) for name, part in value.items()]
        elif isinstance(value, list):
            place = (*path, "")
            waiting += [(place, item) for item in value if isinstance(item, (Mapping, list))]
            yield from ((place, item) for item in value if not isinstance(item, (Mapping, list)))


def _check_type(path: tuple[str, ...], section: Mapping[str, Any]) -> None:
    """mlx_lm imports a module of this name."""
    kind = section.get("model_type")
    if kind is not None and not (isinstance(kind, str) and _TYPE.fullmatch(kind)):
        raise RangeError(_named((*path, "model_type")), "is not the name of a type of model")


def _check_heads(path: tuple[str, ...], section: Mapping[str, Any]) -> None:
    heads, shared = section.get("num_attention_heads"), section.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(shared, int) and heads % shared:
        raise RangeError(
            _named((*path, "num_key_value_heads")), f"is {shared}, which does not divide the {heads} attention heads"
        )
    width = section.get("hidden_size")
    has_own_width = any(value for name, value in section.items() if _HEAD_WIDTH.search(name))
    if isinstance(heads, int) and isinstance(width, int) and not has_own_width and width % heads:
        raise RangeError(
            _named((*path, "num_attention_heads")), f"is {heads}, which does not divide the hidden_size of {width}"
        )


def _check_layers(path: tuple[str, ...], section: Mapping[str, Any]) -> None:
    layers = _first(section, _LAYER_COUNTS)[1]
    next_layers = min(_whole(section.get("num_nextn_predict_layers")), _MOST_NEXT_LAYERS)
    most = layers + next_layers if layers else MOST_LAYERS
    for name in _LAYER_LISTS:
        listed = section.get(name)
        if isinstance(listed, (list, str)) and len(listed) > most:
            raise RangeError(_named((*path, name)), f"has {len(listed)} entries for {layers or MOST_LAYERS} layers")


def _first(section: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, int]:
    """The first of these fields that is there and a whole number; ("", 0) for none."""
    return next(((name, number) for name in names if (number := _whole(section.get(name)))), ("", 0))


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _named(path: tuple[str, ...]) -> str:
    """`text_config.num_hidden_layers`, short whatever the names are."""
    return ".".join(name[:60] if name else "[]" for name in path)
