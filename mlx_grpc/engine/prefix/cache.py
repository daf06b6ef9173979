"""The one small door to mlx_lm's prompt cache: KV caches of rows that have ended, found again by their first tokens.

Bounded in bytes, least recently used first out. A salt keeps tenants apart: entries are found only under the salt that
they were kept under. Caches that can be trimmed (plain attention) serve any shared prefix; others (recurrent layers,
windows that have rotated) only continue exactly where they ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import (
    CacheList,
    KVCache,
    LRUPromptCache,
    RotatingKVCache,
    can_trim_prompt_cache,
    trim_prompt_cache,
)

MIN_TOKENS = 16
"""Shorter prefixes cost more to copy than to compute."""
MAX_ENTRIES = 4096

Caches = list[Any]
"""One cache a layer."""


class PrefixCache:
    """KV caches by (salt, tokens). `max_bytes` 0 keeps nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept = LRUPromptCache(max_size=MAX_ENTRIES, max_bytes=max_bytes)

    @property
    def enabled(self) -> bool:
        """Whether anything is ever kept."""
        return self._max_bytes > 0

    @property
    def nbytes(self) -> int:
        """What is kept now."""
        return int(self._kept.nbytes)

    def fetch(self, salt: str, tokens: Sequence[int]) -> tuple[Caches | None, int]:
        """A copy of the best cache for a row with these tokens, and how many of them it holds: never all, since the
        last one has to be fed to get a next."""
        if self._max_bytes == 0 or len(tokens) <= MIN_TOKENS:
            return None, 0
        caches, rest = self._kept.fetch_nearest_cache(salt, list(tokens))
        if caches is not None and not rest:
            if can_trim_prompt_cache(caches):
                trim_prompt_cache(caches, 1)
                rest = tokens[-1:]
            else:
                caches, rest = self._kept.fetch_nearest_cache(salt, list(tokens[:-1]))
                rest = [*rest, tokens[-1]]
        held = len(tokens) - len(rest)
        return (caches, held) if caches is not None and held >= MIN_TOKENS else (None, 0)

    def keep(self, salt: str, tokens: Sequence[int], caches: Caches) -> None:
        """Keep a row's caches, which hold exactly these tokens. Too large for the bound: not kept."""
        if self._max_bytes == 0 or len(tokens) < MIN_TOKENS:
            return
        if sum(cache.nbytes for cache in caches) > self._max_bytes:
            return
        for cache in caches:
            _trim_only_what_is_whole(cache)
        # Started now, so that they let go of the batch that they were cut from; nobody waits for them.
        mx.async_eval([cache.state for cache in caches])  # type: ignore[no-untyped-call]
        self._kept.insert_cache(salt, list(tokens), caches)


def _trim_only_what_is_whole(cache: Any) -> None:
    """A cache that has let go of tokens cannot be shortened to before them. Kinds that may have, but that say that they
    can be trimmed (ChunkedKVCache does), are made to say no."""
    if isinstance(cache, CacheList):
        for part in cache.caches:
            _trim_only_what_is_whole(part)
    elif type(cache) not in (KVCache, RotatingKVCache):
        cache.is_trimmable = _never


def _never() -> bool:
    return False
