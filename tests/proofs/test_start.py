"""`mlx-grpc serve` with several models starts every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.llama import make_llama
from tests.helpers.proofs.servers import served, tell

pytestmark = pytest.mark.prove

STARTS, FEW_STARTS = 20, 2
MODELS = 4


def test_four_models_start_every_time(full_size: bool, tmp_path: Path) -> None:
    """Four `--model` flags, real engines and tokenizers: each start ends with four models READY."""
    folders = [make_llama(tmp_path / f"model-{number}", seed=number) for number in range(MODELS)]
    first, *others = (f"m{number}={folder}" for number, folder in enumerate(folders))
    flags = [word for source in others for word in ("--model", source)]
    starts = STARTS if full_size else FEW_STARTS
    for _ in range(starts):
        with served(tmp_path, *flags, model=first) as server:
            states = {model["id"]: model["state"] for model in server.status()["models"]}
            assert states == {f"m{number}": "ready" for number in range(MODELS)}
            server.terminate()
            assert server.process.wait() == 0
    tell(f"{starts} of {starts} starts with {MODELS} models")
