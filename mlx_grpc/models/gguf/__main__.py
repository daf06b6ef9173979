"""Imports a GGUF file: `python -m mlx_grpc.models.gguf SOURCE DESTINATION`.

Runs as a child process: it takes all of a processor, and a file that shrinks while it is mapped would kill it. It
talks in lines on stdout: `progress DONE TOTAL` in bytes, and as the last, with exit code 1, `error TEXT` or, for a full
disk and the like, `storage TEXT`. DESTINATION is a folder that exists; whoever started the import publishes it. How
much memory and time the child may take follows from the size of the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mlx_grpc.models.gguf.config import model_config
from mlx_grpc.models.gguf.header import GgufHeader, read_header
from mlx_grpc.models.gguf.layout import plan_weights
from mlx_grpc.models.gguf.special_ids import special_ids
from mlx_grpc.models.gguf.tensors import write_weights
from mlx_grpc.models.gguf.tokenizer import tokenizer_config, tokenizer_json
from mlx_grpc.models.limits import limit_resources
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.models.words import one_line


def import_gguf(source: Path, destination: Path) -> None:
    """Writes the model in `source` as an MLX folder, `destination`. Raises ModelSourceError or OSError."""
    header = read_header(source)
    config = model_config(header)
    plan = plan_weights(header, config)
    _write_json(destination / "tokenizer.json", tokenizer_json(header))
    _check_tokenizer(header, destination)
    _write_json(destination / "tokenizer_config.json", tokenizer_config(header, config["max_position_embeddings"]))
    _write_json(destination / "generation_config.json", special_ids(header))
    _write_json(destination / "config.json", {**config, **plan.quantization(), "torch_dtype": plan.dtype})
    write_weights(plan, source, destination / "model.safetensors", _say_progress)


def _check_tokenizer(header: GgufHeader, destination: Path) -> None:
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(destination / "tokenizer.json"))
    except BaseException as error:  # the library raises nothing narrower, and panics where it is wrong itself
        raise ModelSourceError(f"{header.path}: its tokenizer is damaged ({error}); download it again") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _say_progress(done: int, total: int) -> None:
    _say(f"progress {done} {total}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Runs one import; returns the exit code."""
    source, destination = (Path(argument) for argument in arguments)
    try:
        limit_resources(source.stat().st_size)
        import_gguf(source, destination)
    except ModelSourceError as error:
        _say(f"error {error}")
        return 1
    except OSError as error:
        _say(f"storage {error.strerror or error}")
        return 1
    except Exception as error:  # whatever is in the file
        reason = one_line(str(error)) or type(error).__name__
        _say(f"error {source}: it could not be imported ({reason}); download it again, or free memory")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
