"""What the layers of a batch have in common in a step: positions, padding and masks, each made once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.base import create_causal_mask

KEPT_MASKS = 2
"""A step has one for each kind of layer."""


class SharedArrays:
    """Arrays that all layers ask for in a step. `grouped_masks`: the model's attention computes its scores as [rows,
    heads of keys, queries of each, tokens, keys], and masks need an axis more for that."""

    def __init__(self, *, grouped_masks: bool = False) -> None:
        self.grouped_masks = grouped_masks
        self._made: dict[str, tuple[Any, mx.array]] = {}
        self._seen: deque[tuple[mx.array, list[int]]] = deque(maxlen=KEPT_MASKS)

    def array(self, name: str, of: Any, make: Callable[[], mx.array]) -> mx.array:
        """The last one of this name, if it was made of the same."""
        made = self._made.get(name)
        if made is None or made[0] != of:
            made = self._made[name] = (of, make())
        return made[1]

    def integers(self, name: str, of: Sequence[int]) -> mx.array:
        """[rows] int32."""
        return self.array(name, list(of), lambda: mx.array(list(of), dtype=mx.int32))

    def mask(
        self, tokens: int, keys: int, paddings: Sequence[int], window: int | None, *, as_array: bool = False
    ) -> Any:
        """What the next tokens of each row see: themselves, and of the `keys` places that end with them those that are
        not padding and at most `window` back.

        None or "causal" where MLX needs no array, which lets it use its fused attention; else bool, [tokens, keys]
        without padding and [rows, 1, tokens, keys] with it.
        """
        padded = any(paddings)
        limit = window if window is not None and keys > window else None
        if not padded and limit is None:
            if tokens == 1:
                return None
            if not as_array:
                return "causal"
        left = self.integers("mask_padding", paddings) if padded else None
        mask = create_causal_mask(tokens, keys - tokens, window_size=limit, left_padding=left)
        if padded and self.grouped_masks:
            mask = mask[:, :, None]
        if limit is None:
            self._seen.append((mask, list(paddings)))
        return mask

    def paddings_of(self, mask: Any) -> list[int] | None:
        """Where each row's tokens begin, if `mask` was made a moment ago, and says that and what is causal."""
        return next((paddings for made, paddings in self._seen if made is mask), None)
