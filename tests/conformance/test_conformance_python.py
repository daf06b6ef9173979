"""The Python client plays every conformance vector. The other clients' runners do the same in their own tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.conformance.helper_program import HelperProgram, helper_program
from tests.conformance.runner_python import Vector, missing, play, vectors

VECTORS = list(vectors())


@pytest.fixture(scope="module")
def helper() -> Iterator[HelperProgram]:
    with helper_program() as program:
        yield program


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_vector(vector: Vector, helper: HelperProgram) -> None:
    """What the vector's `about` says."""
    if reason := missing(vector, helper):
        pytest.skip(reason)
    assert not asyncio.run(play(vector, helper))


def test_names_are_unique() -> None:
    """A table of results is keyed by them."""
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS)
