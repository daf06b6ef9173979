"""Headers of safetensors files that lie are refused before anything believes them."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_grpc.models.json_file import HEADER
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.models.weights_header import WeightFacts, read_weight_facts

HONEST: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "U32", "shape": [4], "data_offsets": [24, 40]},
}


def write(path: Path, header: Any, data_bytes: int = 40, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(data_bytes))
    return path


def test_an_honest_header_is_counted(tmp_path: Path) -> None:
    """A packed number may hold 32 weights of one bit."""
    path = write(tmp_path / "model.safetensors", HONEST)
    assert read_weight_facts(path) == WeightFacts(path.stat().st_size, 2, 6 + 4 * 32, 4 * 32)


@pytest.mark.parametrize(
    "change",
    [
        {"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 24]}},
        {"a": {"dtype": "F32", "shape": [2**32, 2**32, 2**32], "data_offsets": [0, 24]}},
        {"a": {"dtype": "F32", "shape": [-2, -3], "data_offsets": [0, 24]}},
        {"a": {"dtype": "F32", "shape": [2.0, 3], "data_offsets": [0, 24]}},
        {"a": {"dtype": "F32", "shape": [1] * 1000, "data_offsets": [0, 4]}},
        {"a": {"dtype": "PICKLE", "shape": [24], "data_offsets": [0, 24]}},
        {"a": {"dtype": ["F32"], "shape": [6], "data_offsets": [0, 24]}},
        {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [24, 0]}},
        {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24, 3]}},
        {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [16, 40]}},
        {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [2**50, 2**50 + 24]}},
        {"a": 3},
        {"a": None},
        {"b": {"dtype": "U32", "shape": [400], "data_offsets": [24, 1624]}},
    ],
)
def test_a_lie_about_a_tensor_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """Shapes that overflow or do not fit their bytes, unknown types, tensors that overlap or lie outside."""
    with pytest.raises(ModelSourceError, match=r"model\.safetensors is cut short or damaged"):
        read_weight_facts(write(tmp_path / "model.safetensors", HONEST | change))


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**60, 2**64 - 1])
def test_a_length_that_is_not_the_headers_is_refused(tmp_path: Path, length: int) -> None:
    """Nothing of that size is allocated."""
    with pytest.raises(ModelSourceError):
        read_weight_facts(write(tmp_path / "model.safetensors", HONEST, length=length))


@pytest.mark.parametrize("header", [b"[]", b"{", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"{}", b"null"])
def test_a_header_that_is_no_object_of_tensors_is_refused(tmp_path: Path, header: bytes) -> None:
    """However deeply nested."""
    with pytest.raises(ModelSourceError):
        read_weight_facts(write(tmp_path / "model.safetensors", header))


def test_a_header_with_more_values_than_it_may_have_is_not_parsed(tmp_path: Path) -> None:
    """Each value takes more memory than its bytes in the file."""
    header = b"{" + b'"":[],' * (HEADER.most_values // 2 + 1) + b'"b":[]}'
    with pytest.raises(ModelSourceError, match="values"):
        read_weight_facts(write(tmp_path / "model.safetensors", header))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Only an ordinary file is read."""
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(ModelSourceError, match="ordinary"):
        read_weight_facts(tmp_path / "model.safetensors")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(place=st.integers(0, 200), byte=st.integers(0, 255))
def test_one_wrong_byte_breaks_nothing(tmp_path: Path, place: int, byte: int) -> None:
    """A header or a ModelSourceError, and what is counted never exceeds the file."""
    path = write(tmp_path / "model.safetensors", HONEST)
    damaged = bytearray(path.read_bytes())
    damaged[place % len(damaged)] = byte
    path.write_bytes(damaged)
    with contextlib.suppress(ModelSourceError):
        assert read_weight_facts(path).most_weights <= 8 * path.stat().st_size
