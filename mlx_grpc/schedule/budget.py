"""How many rows the memory holds.

Rows of a batch are padded to the longest of them, so its KV cache is rows x longest and not the sum of their
lengths. A row that joins or leaves makes the engine copy the whole cache, so for a moment there are two of
it: 786 MB of cache were seen to peak at 1,421 MB.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KvBudget:
    """Bytes that the KV caches of one engine may take, copies included.

    `total_bytes` 0, or `kv_bytes_per_token` 0 (an unknown model), means no limit. `copy_factor` is what the
    cache takes at its peak, in multiples of its own size. Lengths are reserved ones: prompt + max_tokens, in
    tokens.
    """

    total_bytes: int
    kv_bytes_per_token: int
    copy_factor: float = 2.0

    def __post_init__(self) -> None:
        if self.total_bytes < 0 or self.kv_bytes_per_token < 0:
            raise ValueError("total_bytes and kv_bytes_per_token must be 0 (no limit) or more")
        if not self.copy_factor >= 1.0:
            raise ValueError("copy_factor must be 1 or more")

    @property
    def unlimited(self) -> bool:
        """Whether anything fits."""
        return self.total_bytes == 0 or self.kv_bytes_per_token == 0

    def batch_bytes(self, rows: int, longest_tokens: int) -> int:
        """Peak bytes of `rows` rows padded to `longest_tokens`: copy_factor x rows x longest x
        kv_bytes_per_token."""
        return math.ceil(self.copy_factor * (rows * longest_tokens * self.kv_bytes_per_token))

    def needed_bytes(self, reserved_tokens: Collection[int]) -> int:
        """Peak bytes of a batch whose rows reserve these lengths."""
        return self.batch_bytes(len(reserved_tokens), max(reserved_tokens, default=0))

    def batch_fits(self, rows: int, longest_tokens: int) -> bool:
        """Whether a batch of this shape stays within the budget."""
        return self.unlimited or self.batch_bytes(rows, longest_tokens) <= self.total_bytes

    def rows_at_most(self, longest_tokens: int) -> int | None:
        """How many rows of this length fit; None for any number."""
        if self.unlimited or longest_tokens == 0:
            return None
        rows = int(self.total_bytes / (self.copy_factor * longest_tokens * self.kv_bytes_per_token))
        return rows + 1 if self.batch_fits(rows + 1, longest_tokens) else rows

    def fits(self, running_reserved: Collection[int], candidate_reserved: int) -> bool:
        """Whether a row of `candidate_reserved` tokens may join the running ones."""
        longest = max(max(running_reserved, default=0), candidate_reserved)
        return self.batch_fits(len(running_reserved) + 1, longest)

    def can_ever_fit(self, reserved_tokens: int) -> bool:
        """Whether such a row fits when it runs alone."""
        return self.batch_fits(1, reserved_tokens)

    def with_total(self, total_bytes: int) -> KvBudget:
        """The same budget with another total: another engine came or went on the device."""
        return dataclasses.replace(self, total_bytes=total_bytes)
