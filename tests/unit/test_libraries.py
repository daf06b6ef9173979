"""Libraries that are not safe to import in two threads at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers.house import ROOT
from tests.helpers.llama import make_llama

PROGRAM = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from mlx_grpc.service.intake.tokenizer import load_tokenizer

together = threading.Barrier(len(sys.argv) - 1)

def load(path):
    together.wait()
    return load_tokenizer(path).vocab_size

with ThreadPoolExecutor(len(sys.argv) - 1) as pool:
    print(*pool.map(load, sys.argv[1:]))
"""


def test_tokenizers_load_in_threads_that_begin_together(tmp_path: Path) -> None:
    """In a process that has not imported transformers yet, and for models of different families, whose packages are
    imported as late."""
    kinds = ("llama", "qwen2", "llama", "gemma")
    folders = [str(make_llama(tmp_path / str(number))) for number in range(len(kinds))]
    for folder, kind in zip(folders, kinds, strict=True):
        config = Path(folder, "config.json")
        config.write_text(config.read_text().replace('"llama"', f'"{kind}"'))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *folders], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(kinds)
