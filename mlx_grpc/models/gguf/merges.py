"""The merges of a SentencePiece vocabulary, which are not in the file: every pair of pieces that makes a piece.

A piece of n characters can be made in n - 1 ways, so what a vocabulary of some bytes gives is bounded here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlx_grpc.models.sources import ModelSourceError

MOST_TOKEN_CHARACTERS = 512
"""Published vocabularies have tokens of up to 256: runs of spaces, and ornaments of source code."""
MOST_TOKENS = 1 << 20
MOST_MERGES = 1 << 21
"""A vocabulary of 256,000 pieces has 515,000."""
MOST_MERGED_CHARACTERS = 1 << 26
"""Of all pieces that merges make, as the tokenizer's file has to write them."""


def check_tokens(path: Path, tokens: Sequence[str]) -> None:
    """Raises ModelSourceError for a list that is not a vocabulary of ordinary size. `path` is the file's."""
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ModelSourceError(f"{path}: tokenizer.ggml.tokens is not a list of strings; convert the model again")
    if len(tokens) > MOST_TOKENS:
        raise ModelSourceError(f"{path}: tokenizer.ggml.tokens has {len(tokens)} tokens, and may have {MOST_TOKENS}")
    longest = max(range(len(tokens)), key=lambda index: len(tokens[index]), default=0)
    if tokens and len(tokens[longest]) > MOST_TOKEN_CHARACTERS:
        raise ModelSourceError(
            f"{path}: tokenizer.ggml.tokens: token {longest} has {len(tokens[longest])} characters, and may have "
            f"{MOST_TOKEN_CHARACTERS}"
        )


def derived_merges(path: Path, vocab: Mapping[str, int], scores: Sequence[float]) -> list[list[str]]:
    """Pairs of pieces; the better the score of what they make, the earlier. Raises ModelSourceError for more than a
    vocabulary has, and for scores that are none."""
    if len(scores) <= max(vocab.values(), default=-1) or not all(isinstance(score, (int, float)) for score in scores):
        raise ModelSourceError(f"{path}: tokenizer.ggml.scores has no number for each token; convert the model again")
    ranked, characters = [], 0
    for token, index in vocab.items():
        for left, right in _pairs(token, vocab):
            ranked.append((-scores[index], vocab[left], vocab[right]))
            characters += len(token)
            if len(ranked) > MOST_MERGES or characters > MOST_MERGED_CHARACTERS:
                raise ModelSourceError(f"{path}: its {len(vocab)} tokens can be merged in more than {len(ranked)} ways")
    pieces = {index: token for token, index in vocab.items()}
    return [[pieces[left], pieces[right]] for _, left, right in sorted(ranked)]


def _pairs(token: str, vocab: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for cut in range(1, len(token)):
        left, right = token[:cut], token[cut:]
        if left in vocab and right in vocab:
            yield left, right
