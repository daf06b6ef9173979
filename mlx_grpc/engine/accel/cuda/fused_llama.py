"""Decode steps of the Llama family with fewer kernels, for CUDA, where launching them bounds a step.

Of mlx_lm's 18 to 23 kernels a layer 11 are left: one product for queries, keys and values, one for gate and up, one
rotation for all heads, one copy into the KV cache, one kernel for attention, and sums ride on the products before them.
What lies between two writes to the cache is traced once for a shape, and then repeated without Python. The numbers are
those of mlx_lm's own code up to rounding. Prompts go through that, and so do models that are not as expected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.positional_encoding import RoPE
from mlx_lm.models import llama
from mlx_lm.models.cache import KVCache
from mlx_lm.models.rope_utils import Llama3RoPE

from mlx_grpc.engine.accel.cuda import attention as cuda_attention
from mlx_grpc.engine.accel.cuda.linear import Arrays, Product
from mlx_grpc.engine.batch.caches.plain import RowsKVCache
from mlx_grpc.engine.batch.caches.rows import batched

ROTATIONS = (RoPE, Llama3RoPE)
"""Those that leave position 0 as it is, so that values can go through them."""
KEPT_TRACES = 512
"""One for each count of rows and room for their tokens."""


def fused(network: Module) -> Module:
    """The network with decode steps of its own, where it can have them. Its weights have been read."""
    if type(network) is not llama.Model or not all(map(_is_expected, network.layers)):
        return network
    if (parts := _Parts.of(network)) is None:
        return network
    own = FusedLlama(network, parts)
    own.warm_up()
    return own


def _is_expected(block: Module) -> bool:
    if type(block) is not llama.TransformerBlock or block.use_sliding:
        return False
    return type(block.self_attn.rope) in ROTATIONS and block.self_attn.head_dim in cuda_attention.HEAD_SIZES


class FusedLlama(Module):
    """llama.Model with another way for steps in which each row has one token."""

    def __init__(self, network: Module, parts: _Parts) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.network = network
        self._parts = parts
        self._before = [parts.weights_before(block) for block in network.layers]
        self._after = [parts.weights_after(block) for block in network.layers]
        self._traces = lru_cache(KEPT_TRACES)(lambda rows, room: parts.traces())

    def warm_up(self) -> None:
        """Have MLX compile what steps need, for few rows and for many: no stream should wait those seconds."""
        for rows in (1, -(-cuda_attention.ENOUGH_BLOCKS // self._parts.heads)):
            caches = batched([[KVCache() for _ in self.layers] for _ in range(rows)])
            for tokens in (2, 1):
                mx.eval(self(mx.zeros((rows, tokens), dtype=mx.uint32), cache=caches))

    @property
    def layers(self) -> Any:
        """mlx_lm's, which hold the weights."""
        return self.network.layers

    def make_cache(self) -> Any:
        """As mlx_lm's."""
        return self.network.make_cache()

    def __call__(self, inputs: mx.array, cache: Sequence[Any] | None = None) -> mx.array:
        """inputs: [rows, tokens]; gives logits: [rows, tokens, vocabulary]."""
        if inputs.shape[1] == 1 and cache and self._can_step(len(inputs), cache):
            return self._step(inputs, cache)
        logits: mx.array = self.network(inputs, cache=cache)
        return logits

    def _can_step(self, rows: int, caches: Sequence[Any]) -> bool:
        if any(type(cache) is not RowsKVCache for cache in caches) or caches[0].pairs is None:
            return False
        return cuda_attention.is_for(rows, self._parts.heads, caches[0].size() + 1)

    def _step(self, inputs: mx.array, caches: Sequence[RowsKVCache]) -> mx.array:
        """One token of each row."""
        parts = self._parts
        begin, between, end = self._traces(inputs.shape[0], caches[0].room_with(1))
        places = caches[0].next_places(parts.heads + parts.shared_heads, parts.shared_heads)
        hidden, heads, pairs = begin(inputs, places, self._before[0])
        for cache, after, before in zip(caches[:-1], self._after, self._before[1:], strict=False):
            hidden, heads, pairs = between(hidden, heads, cache.add_pairs(pairs), places, after, before)
        logits: mx.array = end(hidden, heads, caches[-1].add_pairs(pairs), places, self._after[-1])
        return logits


class _Parts:
    """What a step is put together from. Weights are arguments, so that one trace serves all layers.

    hidden: [rows, 1, width]; heads: queries, keys and values as [rows, heads of all, size]; pairs: keys and values as
    [2, rows, shared heads, 1, size].
    """

    def __init__(self, network: Module, products: Sequence[Product]) -> None:
        self._network = network
        self._qkv, self._out, self._gate_up, self._down = products
        block = network.layers[0]
        attention = block.self_attn
        self.heads, self.shared_heads, self._size = attention.n_heads, attention.n_kv_heads, attention.head_dim
        self._rope, self._eps = attention.rope, block.input_layernorm.eps
        self._scale = mx.array(attention.scale, dtype=mx.float32)

    @classmethod
    def of(cls, network: Module) -> _Parts | None:
        """None where layers differ in more than their weights."""
        blocks = network.layers
        attentions, mlps = [block.self_attn for block in blocks], [block.mlp for block in blocks]
        products = (
            Product.of([layer for part in attentions for layer in (part.q_proj, part.k_proj, part.v_proj)]),
            Product.of([part.o_proj for part in attentions]),
            Product.of([layer for part in mlps for layer in (part.gate_proj, part.up_proj)]),
            Product.of([part.down_proj for part in mlps]),
        )
        known = [product for product in products if product is not None]
        return cls(network, known) if len(known) == len(products) else None

    def weights_before(self, block: Module) -> tuple[mx.array, Arrays]:
        """Of what comes before attention."""
        attention = block.self_attn
        joined = self._qkv.arrays([attention.q_proj, attention.k_proj, attention.v_proj])
        return block.input_layernorm.weight, joined

    def weights_after(self, block: Module) -> tuple[mx.array, Arrays, Arrays, Arrays]:
        """Of what comes after it."""
        return (
            block.post_attention_layernorm.weight,
            self._out.arrays([block.self_attn.o_proj]),
            self._gate_up.arrays([block.mlp.gate_proj, block.mlp.up_proj]),
            self._down.arrays([block.mlp.down_proj]),
        )

    def traces(self) -> tuple[Callable[..., Any], ...]:
        """The three pieces of a step, still to be traced."""
        return mx.compile(self._begin), mx.compile(self._between), mx.compile(self._end)

    def _begin(self, inputs: mx.array, places: Any, before: Any) -> Any:
        hidden = self._network.model.embed_tokens(inputs)
        return (hidden, *self._heads(hidden, places, before))

    def _between(self, hidden: mx.array, heads: mx.array, held: mx.array, places: Any, after: Any, before: Any) -> Any:
        hidden = self._attend(hidden, heads, held, places, after)
        return (hidden, *self._heads(hidden, places, before))

    def _end(self, hidden: mx.array, heads: mx.array, held: mx.array, places: Any, after: Any) -> mx.array:
        network = self._network
        out = network.model.norm(self._attend(hidden, heads, held, places, after))
        logits: mx.array = (
            network.model.embed_tokens.as_linear(out) if "lm_head" not in network else network.lm_head(out)
        )
        return logits

    def _heads(self, hidden: mx.array, places: Any, before: Any) -> tuple[mx.array, mx.array]:
        """All heads are rotated as rows of their own, since those lie dense; values by position 0, which is nothing."""
        (offsets, _, _), (norm, qkv) = places, before
        rows = hidden.shape[0]
        every = self._qkv(mx.fast.rms_norm(hidden, norm, self._eps), qkv)
        rotated = self._rope(every.reshape(-1, 1, 1, self._size), offset=offsets)
        pairs = rotated.reshape(rows, -1, self._size)[:, self.heads :]
        pairs = pairs.reshape(rows, 2, self.shared_heads, 1, self._size).transpose(1, 0, 2, 3, 4)
        return rotated.reshape(rows, -1, self._size), pairs

    def _attend(self, hidden: mx.array, heads: mx.array, held: mx.array, places: Any, after: Any) -> mx.array:
        (_, starts, end), (norm, out, gate_up, down) = places, after
        attended = cuda_attention.attend(heads, held, starts, end, self._scale, self.heads)
        hidden = self._out.plus(attended, out, hidden)
        gate, up = mx.split(self._gate_up(mx.fast.rms_norm(hidden, norm, self._eps), gate_up), 2, axis=-1)
        return self._down.plus(gate * mx.sigmoid(gate) * up, down, hidden)
