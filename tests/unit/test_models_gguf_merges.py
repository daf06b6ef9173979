"""Merges that follow from a vocabulary take memory by its size, whatever its tokens look like."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from mlx_grpc.models.gguf import merges
from mlx_grpc.models.gguf.merges import check_tokens, derived_merges
from mlx_grpc.models.sources import ModelSourceError

PATH = Path("a.gguf")


def test_every_pair_of_pieces_in_the_order_of_scores() -> None:
    """As SentencePiece merges: the best first, then by the ids of the two."""
    vocab = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5}
    scores = [0.0, 0.0, 0.0, -2.0, -1.0, -3.0]
    assert derived_merges(PATH, vocab, scores) == [["b", "c"], ["a", "b"], ["a", "bc"], ["ab", "c"]]


@pytest.mark.parametrize("length", [513, 40_000])
def test_a_long_token_is_refused(length: int) -> None:
    """A token of n characters has n - 1 splits of n characters: 41 KB of file took 1.5 GB."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelSourceError, match=f"token 1 has {length} characters"):
            check_tokens(PATH, ["a", "a" * length, "b"])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bound", ["MOST_MERGES", "MOST_MERGED_CHARACTERS"])
def test_more_merges_than_a_vocabulary_has_are_refused(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """Runs of one letter can be merged everywhere."""
    monkeypatch.setattr(merges, bound, 1000)
    vocab = {"a" * (n + 1): n for n in range(200)}
    with pytest.raises(ModelSourceError, match="merged in more than"):
        derived_merges(PATH, vocab, [0.0] * 200)


def test_the_longest_runs_that_are_allowed_take_little() -> None:
    """All splits of all runs of one letter: 130,000 merges."""
    vocab = {"a" * (n + 1): n for n in range(512)}
    tracemalloc.start()
    try:
        assert len(derived_merges(PATH, vocab, [0.0] * 512)) == 512 * 511 // 2
        assert tracemalloc.get_traced_memory()[1] < 60 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("tokens", ["abc", [1, 2], None, [["a"]]])
def test_a_list_that_is_no_vocabulary_is_refused(tokens: object) -> None:
    """Metadata may have any type."""
    with pytest.raises(ModelSourceError, match="not a list of strings"):
        check_tokens(PATH, tokens)  # type: ignore[arg-type]


@pytest.mark.parametrize("scores", [[], [0.0], ["x"] * 3])
def test_scores_that_are_none_are_refused(scores: list[float]) -> None:
    """Too few, or of another type."""
    with pytest.raises(ModelSourceError, match="scores"):
        derived_merges(PATH, {"a": 0, "b": 1, "ab": 2}, scores)
