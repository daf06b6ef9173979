"""Looks whether a folder is a whole MLX model, before a child process is started to load it."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpc.models.sources import ModelSourceError

_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")
_INDEX = "model.safetensors.index.json"


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
        raise ModelSourceError(f"model folder {path} {what}; give an MLX model folder, a .gguf file or org/name")
    config = _config(path)
    weights_bytes = sum(_checked_safetensors_bytes(file) for file in _weight_files(path))
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
        dtype=str(shape.get("torch_dtype") or shape.get("dtype") or ""),
        quantization_bits=_whole_number(bits),
        weights_bytes=weights_bytes,
        text_only=not isinstance(text, dict),
    )


def _config(path: Path) -> dict[str, Any]:
    config = _json_object(path / "config.json", f"model folder {path} has no config.json: it is no MLX model folder")
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise ModelSourceError(f"{path / 'config.json'} names no model_type; give an MLX model folder")
    return config


def _weight_files(path: Path) -> list[Path]:
    """The safetensors files that mlx_lm will read; all that the index names must be there."""
    files = sorted(path.glob("model*.safetensors"))
    if (path / _INDEX).is_file():
        listed = _json_object(path / _INDEX, f"{path / _INDEX} cannot be read").get("weight_map")
        names = set(listed.values()) if isinstance(listed, dict) else set()
        missing = sorted(str(name) for name in names if not (path / str(name)).is_file())
        if missing:
            raise ModelSourceError(
                f"model folder {path} lacks {missing[0]} ({len(missing)} of {len(names)}); copy it again"
            )
    if not files:
        raise ModelSourceError(f"model folder {path} has no model*.safetensors; give a model in MLX's format")
    return files


def _checked_safetensors_bytes(file: Path) -> int:
    """The file's size; raises ModelSourceError when it differs from what its header announces."""
    damaged = ModelSourceError(f"{file} is cut short or damaged; download or copy it again")
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(8)
            header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _MAX_HEADER_BYTES + 1
            if header_bytes > min(_MAX_HEADER_BYTES, size_bytes - 8):
                raise damaged
            header = json.loads(stream.read(header_bytes))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if not ends or 8 + header_bytes + max(ends) != size_bytes:
            raise damaged
    except OSError as error:
        raise ModelSourceError(f"{file}: {error.strerror or error}; make it readable") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise damaged from error
    return size_bytes


def _json_object(file: Path, when_missing: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ModelSourceError(f"{when_missing}; give an MLX model folder, a .gguf file or org/name") from error
    except OSError as error:
        raise ModelSourceError(f"{file}: {error.strerror or error}; make it readable") from error
    except (ValueError, RecursionError) as error:
        raise ModelSourceError(f"{file} is not JSON ({error}); download or copy it again") from error
    if not isinstance(content, dict):
        raise ModelSourceError(f"{file} holds no JSON object; download or copy it again")
    return content


def _whole_number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
