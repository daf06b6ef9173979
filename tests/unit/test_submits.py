"""Rows cut into messages that fit a frame."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.engine import messages
from mlx_grpc.engine.messages import FRAME_HEADER_BYTES, Row, SamplingParams, Submit, encode
from mlx_grpc.engine.submits import bytes_at_most, row_bytes_limit, submits

ids = st.integers(0, 2**32 - 1)
params = st.builds(
    SamplingParams,
    temperature=st.floats(allow_nan=False),
    repetition_window=st.integers(1, 8192),
    logit_bias=st.dictionaries(ids, st.floats(-1000, 1000), max_size=20),
    seed=st.integers(0, 2**64 - 1),
)
rows = st.builds(
    Row,
    row_id=st.integers(1, 2**40),
    prompt=st.lists(ids, max_size=300),
    output=st.lists(ids, max_size=100),
    max_tokens=ids,
    min_tokens=ids,
    stop_ids=st.lists(ids, max_size=20),
    sampling=params,
    top_logprobs=st.integers(-1, 20),
    use_cache=st.booleans(),
    cache_salt=st.text(max_size=128),
)


@given(rows)
def test_no_row_takes_more_than_was_said(row: Row) -> None:
    """With the largest ids, numbers and characters, too."""
    assert len(msgspec.msgpack.encode(row)) <= bytes_at_most(row)


@given(st.lists(rows, max_size=8), st.integers(4096, 8192))
def test_every_message_fits_and_nothing_is_lost(many: list[Row], limit: int) -> None:
    """Rows come in their order, each once; a message has one row more only where it fits."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(messages, "MAX_FRAME_BYTES", limit)
        many = [row for row in many if bytes_at_most(row) <= row_bytes_limit()]
        made = list(submits(many))
        assert all(len(encode(submit)) - FRAME_HEADER_BYTES <= limit for submit in made)
        assert [row for submit in made for row in submit.rows] == many
        for submit, after in itertools.pairwise(made):
            assert sum(map(bytes_at_most, [*submit.rows, after.rows[0]])) > row_bytes_limit()


def test_rows_that_fit_go_together() -> None:
    """A thousand ordinary rows are one message."""
    row = Row(1, [5] * 100, [], 100, 0, [2], SamplingParams())
    assert list(submits([row] * 1000)) == [Submit([row] * 1000)]
    assert list(submits([])) == []
