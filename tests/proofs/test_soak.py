"""The soak in short: load, cancelled streams and killed engines, and a picture of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.helpers.proofs.servers import tell
from tools.soak import MODEL, Soak, draw

pytestmark = pytest.mark.prove

SMALL_SECONDS, FULL_SECONDS = 10.0, 120.0


def test_a_short_soak_finds_no_problem(full_size: bool, tmp_path: Path) -> None:
    """Engines are killed meanwhile, no stream fails, nothing is left over. (10 s say nothing of memory.)"""
    seconds = FULL_SECONDS if full_size else SMALL_SECONDS
    soak = Soak(clients=12, seconds=seconds, kill_seconds=seconds / 4)
    seen = asyncio.run(soak.run(MODEL, tmp_path))
    assert [problem for problem in seen.problems() if full_size or "memory" not in problem] == []
    assert seen.kills
    assert seen.ends["finished"] > 50
    tell(f"{seconds:g} s: {dict(seen.ends)}; {len(seen.kills)} engines killed; memory {seen.growth() - 1:+.1%}")
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    draw(seen, tmp_path / "soak.png", "a short soak")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
