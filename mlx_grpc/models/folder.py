"""Looks whether a folder is a whole MLX model, before a child process is started to load it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpc.models.config_check import check_against_weights, check_config
from mlx_grpc.models.config_ranges import RangeError, value_problem
from mlx_grpc.models.json_file import read_object
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.models.weights_header import WeightFacts, read_weight_facts

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")
_INDEX = "model.safetensors.index.json"
_MOST_FILES = 4096
_MOST_DTYPE_CHARACTERS = 32
_MOST_NAME_BYTES = 255
_INSTEAD = "give an MLX model folder, a .gguf file or org/name"


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """What the files say; 0 and "" where they say nothing. `quantization_bits` may be 0 too. `text_only`: all weights
    are those of the language model."""

    model_type: str
    context_length: int
    vocab_size: int
    dtype: str
    quantization_bits: int
    weights_bytes: int
    text_only: bool = True


def describe_folder(path: Path) -> FolderFacts:
    """Reads configuration and headers, never weights. Raises ModelSourceError when the model is not whole."""
    if not path.is_dir():
        what = "is a file, not a model folder" if path.exists() else "does not exist"
        raise ModelSourceError(f"model folder {path} {what}; {_INSTEAD}")
    config, weights = read_model(path)
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelSourceError(
            f"model folder {path} has no tokenizer ({', '.join(_TOKENIZER_FILES)}); copy the model again"
        )
    text = config.get("text_config")
    shape = {**config, **text} if isinstance(text, dict) else config
    quantization = config.get("quantization") or config.get("quantization_config")
    bits = quantization.get("bits", 0) if isinstance(quantization, dict) else 0
    return FolderFacts(
        model_type=config["model_type"],
        context_length=_whole_number(shape.get("max_position_embeddings")),
        vocab_size=_whole_number(shape.get("vocab_size")),
        dtype=_dtype(shape),
        quantization_bits=_whole_number(bits),
        weights_bytes=weights.size_bytes,
        text_only=not isinstance(text, dict),
    )


def read_model(path: Path) -> tuple[dict[str, Any], WeightFacts]:
    """config.json, in which no number is out of range, and what the headers of the weights say, which fits it. Raises
    ModelSourceError."""
    file = path / "config.json"
    config = _object_in(file, f"model folder {path} has no config.json: it is no MLX model folder")
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise ModelSourceError(f"{file} names no model_type; give an MLX model folder")
    try:
        check_config(config)
        weights = sum(map(read_weight_facts, _weight_files(path)), WeightFacts())
        check_against_weights(config, weights)
    except RangeError as error:
        raise ModelSourceError(f"{file}: {error}") from error
    check_generation_config(path)
    return config, weights


def check_generation_config(path: Path) -> None:
    """Raises ModelSourceError where generation_config.json is too large, or its end tokens are none. Other values that
    mean nothing are passed over when it is read."""
    file = path / "generation_config.json"
    with contextlib.suppress(FileNotFoundError):
        if problem := value_problem("eos_token_id", read_object(file).get("eos_token_id"), inside=False):
            raise ModelSourceError(f"{file}: eos_token_id {problem}")


def _weight_files(path: Path) -> list[Path]:
    """The safetensors files that mlx_lm will read; all that the index names must be there."""
    files = sorted(path.glob("model*.safetensors"))
    if (path / _INDEX).is_file():
        _check_index(path)
    if not files:
        raise ModelSourceError(f"model folder {path} has no model*.safetensors; give a model in MLX's format")
    if len(files) > _MOST_FILES:
        raise ModelSourceError(f"model folder {path} has more than {_MOST_FILES} files of weights")
    for file in files:
        _check_is_inside(path, file)
    return files


def _check_index(path: Path) -> None:
    listed = read_object(path / _INDEX).get("weight_map")
    names = {str(name) for name in listed.values()} if isinstance(listed, dict) else set()
    if elsewhere := next((name for name in sorted(names) if not _is_file_name(name)), None):
        raise ModelSourceError(f"{path / _INDEX}: weight_map names {elsewhere[:100]!r}, which is not a file's name")
    missing = sorted(name for name in names if not (path / name).is_file())
    if missing:
        raise ModelSourceError(
            f"model folder {path} lacks {missing[0]} ({len(missing)} of {len(names)}); copy it again"
        )


def _is_file_name(name: str) -> bool:
    return Path(name).name == name and name not in ("", "..") and len(name.encode(errors="replace")) <= _MOST_NAME_BYTES


def _check_is_inside(path: Path, file: Path) -> None:
    """A link may lead to another file of the folder, or where the hub's client keeps the files of its snapshots."""
    if file.is_symlink():
        folder, target = path.resolve(), file.resolve()
        if target.parent not in (folder, folder.parent.parent / "blobs"):
            raise ModelSourceError(f"{file} is a link that leads out of the model folder; copy the file there")


def _object_in(file: Path, when_missing: str) -> dict[str, Any]:
    try:
        return read_object(file)
    except FileNotFoundError as error:
        raise ModelSourceError(f"{when_missing}; {_INSTEAD}") from error


def _dtype(shape: Mapping[str, Any]) -> str:
    name = shape.get("torch_dtype") or shape.get("dtype")
    return name if isinstance(name, str) and len(name) <= _MOST_DTYPE_CHARACTERS else ""


def _whole_number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
