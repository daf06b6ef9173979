"""Tries a folder's tokenizer in a child process, before the server reads it.

A small file can make the library take any memory or time, or panic; and its regular expressions may need for ever for
some text. The child has limits, and whatever happens there the server only hears of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlx_grpc.models.config_ranges import MOST_TOKENS
from mlx_grpc.models.json_file import MIB, bound_of, parse_object, read_bytes
from mlx_grpc.models.limits import ENVIRONMENT, limit_growth
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.models.tokenizer_growth import growth_problem
from mlx_grpc.models.words import one_line

MOST_FILE_BYTES = 64 * MIB
"""Of one file with a vocabulary. The largest published ones have 34 million."""
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json", "vocab.txt", "merges.txt")
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_WALL_SECONDS = 60.0
_CPU_SECONDS = 20
_MOST_ADDED_TOKENS = 64
_PROBE_CHARACTERS = 2048
_PIECES = (
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
    "x",
)
PROBES = tuple(
    (piece * _PROBE_CHARACTERS)[:_PROBE_CHARACTERS] + end for piece in _PIECES for end in ("", "b", "~", " ")
)
"""What a text may be full of, and then not: a search goes back when it fails at the end."""


def check_tokenizer(folder: Path) -> None:
    """Raises ModelSourceError for files that are too large, and for a tokenizer that cannot be read, or not used, in
    the memory and time that files of their size may take."""
    size_bytes = sum(_checked_bytes(folder / name) for name in _VOCABULARIES)
    for name in _SETTINGS:
        with contextlib.suppress(FileNotFoundError):
            bound = bound_of(name)
            parse_object(folder / name, read_bytes(folder / name, bound.most_bytes), bound)
    if problem := _tried(folder, size_bytes):
        file = folder / "tokenizer.json"
        raise ModelSourceError(f"{file if file.exists() else folder}: the tokenizer cannot be used: {problem}")


def _checked_bytes(file: Path) -> int:
    """The size of a file that may be missing."""
    if not os.path.lexists(file):
        return 0
    if not file.is_file():
        raise ModelSourceError(f"{file} is not an ordinary file; copy the model again")
    if (size_bytes := file.stat().st_size) > MOST_FILE_BYTES:
        raise ModelSourceError(f"{file} has {size_bytes} bytes, and such a file may have {MOST_FILE_BYTES}")
    return size_bytes


def _tried(folder: Path, size_bytes: int) -> str:
    """What the child says is wrong; empty for nothing."""
    command = [sys.executable, "-m", "mlx_grpc.models.tokenizer_trial", str(folder.absolute()), str(size_bytes)]
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


def main(folder: Path, size_bytes: int) -> int:
    """The child; returns the exit code."""
    try:
        problem = _problem(folder, size_bytes)
    except BaseException as error:  # a panic is nothing narrower
        problem = one_line(str(error)) or type(error).__name__
    sys.stdout.write(problem)
    sys.stdout.flush()
    return 1 if problem else 0


def _problem(folder: Path, size_bytes: int) -> str:
    tokenizer = _read(folder, size_bytes)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= MOST_TOKENS:
        return f"it has a token with the id {largest}, and ids go up to {MOST_TOKENS - 1}"
    for part in (tokenizer.normalizer, tokenizer.decoder):
        # Its pickled state is its part of tokenizer.json.
        if part is not None and (problem := growth_problem(json.loads(part.__getstate__()))):
            return problem
    if (added := tokenizer.num_special_tokens_to_add(False)) > _MOST_ADDED_TOKENS:
        return f"it adds {added} tokens to each text, and may add {_MOST_ADDED_TOKENS}"
    for probe in PROBES:
        tokenizer.decode(tokenizer.encode(probe, add_special_tokens=True).ids, skip_special_tokens=False)
    return ""


def _read(folder: Path, size_bytes: int) -> Any:
    """From tokenizer.json, else from what transformers makes one of, as the server does afterwards."""
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        limit_growth(size_bytes, _CPU_SECONDS)
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    from transformers import AutoTokenizer

    limit_growth(size_bytes, _CPU_SECONDS)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    if not tokenizer.is_fast:
        raise ValueError("it has no fast form; add a tokenizer.json")
    return tokenizer.backend_tokenizer


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
