"""Tries a folder's tokenizer in a child process, before the server reads it.

A small file can make the library take any memory or time, or panic; and its regular expressions may need for ever for
some text. The child has limits, and whatever happens there the server only hears of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from mlx_grpc.models.config_ranges import MOST_TOKENS
from mlx_grpc.models.json_file import MIB, bound_of, parse_object, read_bytes
from mlx_grpc.models.limits import ENVIRONMENT, limit_resources
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.models.words import one_line

MOST_FILE_BYTES = 64 * MIB
"""Of one file with a vocabulary. The largest published ones have 34 million."""
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json", "vocab.txt", "merges.txt")
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_WALL_SECONDS = 60.0
_CPU_SECONDS = 20
_PROBE_CHARACTERS = 2048
PROBES = tuple(
    (piece * _PROBE_CHARACTERS)[:_PROBE_CHARACTERS]
    for piece in (
        "a",
        "A",
        " ",
        "1",
        "a ",
        "aA1 ",
        ".",
        "\n",
        "'",
        "ab1!? ",
        "\u00e9",
        "\u6771",
        "\U0001f642",
        "\0",
        "<|",
    )
)
"""What a text may be full of."""


def check_tokenizer(folder: Path) -> None:
    """Raises ModelSourceError for files that are too large, and for a tokenizer.json that cannot be read, or not used,
    in the memory and time that a file of its size may take."""
    for name in _VOCABULARIES:
        _check_size(folder / name)
    for name in _SETTINGS:
        with contextlib.suppress(FileNotFoundError):
            bound = bound_of(name)
            parse_object(folder / name, read_bytes(folder / name, bound.most_bytes), bound)
    file = folder / "tokenizer.json"
    if file.exists() and (problem := _tried(file)):
        raise ModelSourceError(f"{file} cannot be used: {problem}")


def _check_size(file: Path) -> None:
    if os.path.lexists(file):
        if not file.is_file():
            raise ModelSourceError(f"{file} is not an ordinary file; copy the model again")
        if (size_bytes := file.stat().st_size) > MOST_FILE_BYTES:
            raise ModelSourceError(f"{file} has {size_bytes} bytes, and such a file may have {MOST_FILE_BYTES}")


def _tried(file: Path) -> str:
    """What the child says is wrong; empty for nothing."""
    command = [sys.executable, "-m", "mlx_grpc.models.tokenizer_trial", str(file.absolute())]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ENVIRONMENT},
            timeout=_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it was not read within {_WALL_SECONDS:g} s"
    if done.returncode == 0:
        return ""
    if done.returncode == -signal.SIGXCPU:
        return "reading it, or a short text with it, takes too long"
    if done.returncode < 0:
        return f"reading it ended a process with {signal.Signals(-done.returncode).name}; it may need too much memory"
    return one_line(done.stdout.decode(errors="replace")) or f"exit code {done.returncode}"


def main(path: str) -> int:
    """The child; returns the exit code."""
    file = Path(path)
    limit_resources(file.stat().st_size, cpu_seconds=_CPU_SECONDS)
    try:
        problem = _problem(file)
    except BaseException as error:  # a panic is nothing narrower
        problem = one_line(str(error)) or type(error).__name__
    sys.stdout.write(problem)
    sys.stdout.flush()
    return 1 if problem else 0


def _problem(file: Path) -> str:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= MOST_TOKENS:
        return f"it has a token with the id {largest}, and ids go up to {MOST_TOKENS - 1}"
    for probe in PROBES:
        tokenizer.decode(tokenizer.encode(probe, add_special_tokens=True).ids, skip_special_tokens=False)
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
