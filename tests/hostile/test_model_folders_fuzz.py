"""Mutated files of model folders: each is a model, or refused in one line; no process ends, and memory is bounded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.gguf import small_gguf
from tests.helpers.gguf_families import MODELS, convert, write_family
from tests.helpers.gguf_vocabularies import byte_level
from tests.helpers.house import ROOT
from tests.helpers.llama import make_llama
from tests.helpers.proofs.servers import tell
from tests.hostile.helpers.files import PIECES, sentence_pieces

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(sys.platform != "linux", reason="the bound on memory is Linux's"),
]
FEW, MANY = 300, 10_000
LONGEST_SECONDS = 10.0
PEAK_BYTES = 1_200_000_000
"""Of the process that reads all of them, MLX and transformers included."""


def fuzzed(kind: str, folder: Path, count: int, seed: int) -> None:
    command = [sys.executable, "-m", "tests.hostile.fuzz_child", kind, str(folder), str(count), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    tell(f"{count} mutated files of the kind {kind}: {found}")
    assert found["longest_seconds"] < LONGEST_SECONDS
    assert found["peak_bytes"] < PEAK_BYTES
    assert found["accepted"] < count


@pytest.mark.parametrize("kind", ["config", "weights", "tokenizer"])
@pytest.mark.parametrize("seed", [1])
def test_mutated_files_of_a_folder(tmp_path: Path, full_size: bool, kind: str, seed: int) -> None:
    """config.json up to the network that MLX builds of it, headers of weights, tokenizers up to a text and back."""
    fuzzed(kind, make_llama(tmp_path / "model"), MANY if full_size else FEW, seed)


@pytest.mark.parametrize("kind", ["byte level", "sentence pieces"])
def test_mutated_gguf_files(tmp_path: Path, full_size: bool, kind: str) -> None:
    """Read as the server reads them, then imported; what is made is no larger than the file lets it be."""
    folder = tmp_path / "model"
    folder.mkdir()
    if kind == "byte level":
        small_gguf(folder / "a.gguf", {"blk.0.attn_q.weight": "Q4_0"})
    else:
        small_gguf(folder / "a.gguf", **sentence_pieces([*PIECES, "c", "d", "ab", "abc", "abcd", "cd"]))
    fuzzed("gguf", folder, MANY if full_size else FEW, 7)


@pytest.mark.parametrize("name", ["gemma3_text_linear", "phi3_longrope"])
def test_mutated_gguf_files_of_other_families(tmp_path: Path, full_size: bool, name: str) -> None:
    """The same with windows, norms that are stored plus 1, joined matrices and factors in tensors."""
    folder = tmp_path / "model"
    folder.mkdir()
    vocabulary = byte_level("qwen2")
    original = write_family(MODELS[name], vocabulary, tmp_path / "original")
    convert(original, vocabulary, folder / "a.gguf")
    fuzzed("gguf", folder, MANY if full_size else FEW, 7)
