"""How prompts share a step's prefill: pure arithmetic. Prompts of one chunk are padded to the longest of it,
so a step costs rows x chunk tokens, and that stays within the budget."""

from __future__ import annotations

from collections.abc import Sequence

# A shorter chunk takes as long as this one: more rows in prefill would only make each wait longer.
SHORTEST_CHUNK_TOKENS = 32
LEAST_USEFUL_SHARE = 0.5


def rows_to_admit(in_prefill: Sequence[int], waiting: Sequence[int], budget_tokens: int) -> int:
    """How many of the waiting prompts join those in prefill, first come first served. Both are lengths in
    tokens still to process. Short prompts join a long one rather than wait behind it; at least one is always
    in prefill."""
    longest = max(in_prefill, default=0)
    rows = len(in_prefill)
    for count, length in enumerate(waiting):
        longest = max(longest, length)
        rows += length > 0  # a prompt of one token has nothing to process before it decodes
        if rows > 1 and rows * min(longest, SHORTEST_CHUNK_TOKENS) > budget_tokens:
            return count
    return len(waiting)


def chunk_tokens(remaining: Sequence[int], budget_tokens: int) -> int:
    """Tokens that each prompt goes on by: the most that fits the budget, unless more than half of it would be
    padding; then fewer, so that the short prompts end and leave the budget to the long ones. `remaining`
    holds no 0.
    """
    most = max(1, min(max(remaining), budget_tokens // len(remaining)))
    candidates = sorted({most, *(length for length in remaining if length < most)}, reverse=True)
    for chunk in candidates:
        useful = sum(min(chunk, length) for length in remaining)
        if useful >= LEAST_USEFUL_SHARE * chunk * len(remaining):
            return chunk
    return candidates[-1]


def tokens_for_scores(context_tokens: int, heads: int, limit_bytes: int) -> int:
    """How many tokens may be processed at once so that their attention scores, heads x tokens x context in half
    precision, take no more than `limit_bytes`; at least one. Not every backend keeps them all, but some do."""
    return max(1, limit_bytes // max(1, 2 * heads * context_tokens))
