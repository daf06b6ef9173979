"""What the server itself reads of a model: its tokenizer, and the sampling that its authors recommend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlx_grpc.engine.exits import exit_reason
from mlx_grpc.service.intake.defaults import SamplingDefaults, read_sampling_defaults
from mlx_grpc.service.intake.tokenizer import SCRIPT_PREFIX, Tokenizer, load_tokenizer


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Both outlive the engine's crashes."""

    tokenizer: Tokenizer
    defaults: SamplingDefaults


def read_files(path: str) -> ModelFiles:
    """Of a model folder or a `script:` model. Blocks. Raises ValueError or OSError in one line."""
    try:
        tokenizer = load_tokenizer(path)
    except SystemExit as error:  # in a thread's result it would end the server
        raise ValueError(f"the tokenizer in {path} cannot be read: {exit_reason(error)}") from error
    is_script = path.startswith(SCRIPT_PREFIX)
    return ModelFiles(tokenizer, SamplingDefaults() if is_script else read_sampling_defaults(Path(path)))
