"""One of each kind of cache through the engine: rows that share the device answer as mlx_lm alone does. All types are
`make prove`'s (tests/proofs/test_architectures.py)."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import pytest

from tests.helpers.models.kinds import TinyModel
from tests.sweep.cases import ORDERS, Case, alone_problems
from tests.sweep.reference import Reference
from tests.sweep.scenarios import opener
from tests.sweep.verdict import OK, verdict

pytestmark = pytest.mark.skipif(mx.default_device().type != mx.DeviceType.cpu, reason="equality is the CPU's")

CASES = [
    Case(what, order)
    for what in ("A", "B", "C", "D", "E", "F", "7")
    for order in (ORDERS if what in ("B", "D", "7") else ["direct"])
]
"""All scenarios, and a random schedule; in both orders of steps where rows come and go or caches are taken out."""


@pytest.fixture(autouse=True, scope="module")
def fresh_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The engine keeps what its tests at load found in a folder of these tests; its libraries are compiled there once
    for all models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def test_rows_that_share_the_device_answer_as_alone(cache_kind: TinyModel) -> None:
    """In each case every row says what the model says alone, which is one thing, however its prompt is cut. For one
    model: `python -m tests.sweep NAME`."""
    reference = Reference(cache_kind.folder)
    assert alone_problems(reference) == []
    said = {
        str(case): verdict(case.prepare(reference), opener(cache_kind.folder, pipelined=case.pipelined))
        for case in CASES
    }
    assert {case: words for case, words in said.items() if words != OK} == {}
