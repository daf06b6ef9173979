"""How rows enter the batch, by what a model's rows can share."""

from __future__ import annotations

import mlx.core as mx
import pytest
from mlx.nn.layers.base import Module
from mlx_lm.utils import load_model

from mlx_grpc.engine.batch.generator import Batching, RowGenerator
from mlx_grpc.engine.messages import Row, SamplingParams
from mlx_grpc.engine.sampling.sampler import BatchSampler
from tests.helpers.llama import VOCAB_SIZE, make_llama

PROMPTS = {1: list(range(20, 90)), 2: [5, 6], 3: list(range(40, 60)), 4: [9]}
NEW_TOKENS = 6


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Module:
    """A tiny Llama."""
    network: Module = load_model(make_llama(tmp_path_factory.mktemp("llama")))[0]
    return network


class Run:
    """A generator, stepped until all rows have their tokens; notes who shared the device."""

    def __init__(self, network: Module, batching: Batching, *, pipelined: bool) -> None:
        self.sampler = BatchSampler(VOCAB_SIZE)
        self.generator = RowGenerator(network, self.sampler, pipelined=pipelined, batching=batching)
        self.tokens: dict[int, list[int]] = {row_id: [] for row_id in PROMPTS}
        self.most_in_prefill = self.most_decoding = 0
        for row_id, prompt in PROMPTS.items():
            self.sampler.add(Row(row_id, prompt, [], NEW_TOKENS, 0, [], SamplingParams()))
            self.generator.enter(row_id, prompt)
        while any(len(tokens) < NEW_TOKENS for tokens in self.tokens.values()):
            self._step()

    def _step(self) -> None:
        for decoded in self.generator.decode():
            self.tokens[decoded.row_id].append(decoded.token)
        ended = [row_id for row_id, tokens in self.tokens.items() if len(tokens) >= NEW_TOKENS]
        self.generator.remove_rows(ended)
        self.generator.prefill(64)
        self.most_in_prefill = max(self.most_in_prefill, len(self.generator._prompts))
        self.most_decoding = max(self.most_decoding, self.generator.decoding_rows)


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize(
    ("batching", "in_prefill", "decoding"),
    [(Batching.PADDED, 3, 4), (Batching.ALIGNED, 1, 4), (Batching.ALONE, 1, 1)],
)
def test_rows_share_what_they_can_and_have_the_same_tokens(
    network: Module, batching: Batching, in_prefill: int, decoding: int, pipelined: bool
) -> None:
    """All of it, the decode steps alone, or nothing; in either order of steps."""
    run = Run(network, batching, pipelined=pipelined)
    assert run.tokens == Run(network, Batching.PADDED, pipelined=False).tokens
    assert run.most_in_prefill <= in_prefill
    assert run.most_decoding <= decoding
    assert run.most_decoding > 1 or batching is Batching.ALONE


@pytest.mark.parametrize("batching", list(Batching))
def test_rows_that_leave_free_their_place(network: Module, batching: Batching) -> None:
    """Wherever they are: waiting, in prefill, about to decode, decoding."""
    for steps in range(6):
        sampler = BatchSampler(VOCAB_SIZE)
        generator = RowGenerator(network, sampler, pipelined=False, batching=batching)
        for row_id, prompt in PROMPTS.items():
            sampler.add(Row(row_id, prompt, [], 64, 0, [], SamplingParams()))
            generator.enter(row_id, prompt)
        for _ in range(steps):
            generator.decode()
            generator.prefill(32)
        generator.remove_rows([1, 2, 3, 4, 5])
        assert (generator.waiting_ids, generator.decoding_rows, generator.kv_bytes) == ([], 0, 0)
        assert generator.decode() == []
        assert generator.prefill(32) == []
    mx.synchronize()
