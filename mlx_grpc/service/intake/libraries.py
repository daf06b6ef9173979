"""The libraries that models' files need, imported once and used by one thread at a time while they import more.

transformers puts another object in its module's place when its import ends, and so does each of its packages of models.
A thread that imports one of them meanwhile is left with the first object, which has none of its names: two models that
began together never loaded. So all threads that load something come through here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_loading = threading.RLock()


def import_libraries() -> None:
    """Import what the loading of any model needs. Takes seconds the first time, and blocks: for a thread."""
    with quiet_transformers():
        from huggingface_hub import constants, errors, scan_cache_dir, snapshot_download  # noqa: F401
        from tokenizers import Tokenizer  # noqa: F401
        from tqdm import tqdm  # noqa: F401


@contextmanager
def quiet_transformers() -> Iterator[Any]:
    """transformers, for this thread alone, and silent: it speaks of PyTorch, and of folders without a model type."""
    with _loading:
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        # A text is tokenized in the thread that asks; with threads of its own the library warns of each process start.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import transformers

        verbosity = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()
        try:
            yield transformers
        finally:
            transformers.logging.set_verbosity(verbosity)
