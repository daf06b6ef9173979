"""The worker on MLX, with a two-layer random Llama: float32 on the CPU, where tokens must be equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model

from mlx_grpc.engine.messages import Cancel, Loaded, Row, RowPrefill, Submit
from tests.helpers.llama import CONTEXT_LENGTH, VOCAB_SIZE, make_llama
from tests.helpers.worker import (
    ChildWorker,
    ThreadWorker,
    generate,
    load,
    next_step,
    row,
    row_tokens,
    started,
    steps_until_idle,
    tokens_by_row,
)

AnyWorker = ThreadWorker | ChildWorker
PROMPTS = [[7], [5, 6], list(range(20, 70)), [9] * 3, list(range(150)), list(range(100, 110))]
STOPPED, LENGTH = 1, 2

pytestmark = pytest.mark.skipif(mx.default_device().type != mx.DeviceType.cpu, reason="equality is the CPU's")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder."""
    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def reference(folder: Path) -> Callable[[tuple[int, ...], int], list[int]]:
    """mlx_lm's own greedy tokens for one prompt alone."""
    model, _ = load_model(folder)

    @lru_cache
    def tokens(prompt: tuple[int, ...], count: int) -> list[int]:
        return [int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=count)]

    return tokens


@pytest.fixture
def worker(folder: Path) -> Iterator[ThreadWorker]:
    """A worker in a thread that has loaded the model; 64 tokens of prefill a step."""
    with started(ThreadWorker) as worker:
        load(worker, str(folder), prefill_step_tokens=64)
        assert isinstance(worker, ThreadWorker)
        yield worker


def seeded(row_id: int, prompt: list[int], max_tokens: int = 16, **settings: object) -> Row:
    return row(row_id, prompt, max_tokens, temperature=1.0, seed=row_id, top_p=0.9, **settings)


@pytest.mark.parametrize("kind", [ThreadWorker, ChildWorker], ids=["thread", "process"])
def test_a_greedy_batch_gives_what_each_prompt_gives_alone(
    kind: Callable[[], AnyWorker], folder: Path, reference: Callable[[tuple[int, ...], int], list[int]]
) -> None:
    """Long, short and one-token prompts together: mlx_lm's tokens for each alone."""
    with started(kind) as worker:
        load(worker, str(folder), prefill_step_tokens=64)
        said = generate(worker, *(row(index, prompt, 20) for index, prompt in enumerate(PROMPTS)))
    assert said == {index: reference(tuple(prompt), 20) for index, prompt in enumerate(PROMPTS)}


# A window that rotates, a recurrent state, and both kinds of layers in one model.
OTHER_CACHES: dict[str, dict[str, Any]] = {
    "gemma3_text": {"head_dim": 16, "sliding_window": 16, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    "mamba2": {
        "num_heads": 8, "head_dim": 16, "state_size": 16, "conv_kernel": 4, "n_groups": 2, "use_bias": False,
        "use_conv_bias": True, "residual_in_fp32": False, "layer_norm_epsilon": 1e-5,
        "time_step_limit": [0.0, 100.0], "time_step_rank": "auto", "expand": 2,
    },
    "lfm2": {
        "norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3, "block_dim": 64, "block_ff_dim": 128,
        "block_multiple_of": 32, "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False,
        "rope_theta": 10000.0, "layer_types": ["conv", "full_attention"],
    },
}  # fmt: skip


@pytest.mark.parametrize("model_type", OTHER_CACHES)
def test_models_with_other_caches_batch_as_well(tmp_path: Path, model_type: str) -> None:
    """Sliding windows and recurrent states: each prompt's tokens in the batch are those it gives alone."""
    folder = make_llama(tmp_path, model_type=model_type, **OTHER_CACHES[model_type])
    model, _ = load_model(folder)
    alone = {
        index: [int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=20)]
        for index, prompt in enumerate(PROMPTS)
    }
    with started(ThreadWorker) as worker:
        load(worker, str(folder), prefill_step_tokens=64)
        assert generate(worker, *(row(index, prompt, 20) for index, prompt in enumerate(PROMPTS))) == alone


@pytest.mark.parametrize("make", [row, seeded])
@pytest.mark.parametrize("border", [1, 7, 15])
def test_a_resumed_row_goes_on_identically(worker: AnyWorker, make: Callable[..., Row], border: int) -> None:
    """The prompt and the first tokens, submitted again beside another row, give the rest of the tokens."""
    whole = generate(worker, make(3, PROMPTS[2], 16))[3]
    resumed = make(3, PROMPTS[2], 16, output=whole[:border])
    rest = generate(worker, resumed, make(4, PROMPTS[4], 16))[3]
    assert whole[:border] + rest == whole


def test_a_resumed_row_keeps_its_penalties(worker: AnyWorker) -> None:
    """Penalties over the output know where the prompt ends."""
    settings = {"presence_penalty": 1.5, "frequency_penalty": 0.5, "repetition_penalty": 1.3}
    whole = generate(worker, seeded(1, PROMPTS[2], 20, **settings))[1]
    rest = generate(worker, seeded(1, PROMPTS[2], 20, output=whole[:9], **settings))[1]
    assert whole[:9] + rest == whole


def test_seeded_rows_say_the_same_alone_and_in_company(worker: AnyWorker) -> None:
    """Each row alone, then all at once."""
    alone = {i: generate(worker, seeded(i, prompt))[i] for i, prompt in enumerate(PROMPTS)}
    together = generate(worker, *(seeded(i, prompt) for i, prompt in enumerate(PROMPTS)))
    assert together == alone


def test_rows_that_join_midway_change_nothing(worker: AnyWorker) -> None:
    """Rows that enter while others decode leave their tokens as they are, and have their own."""
    alone = {i: generate(worker, seeded(i, prompt, 40))[i] for i, prompt in enumerate(PROMPTS[:4])}
    worker.send(Submit([seeded(0, PROMPTS[0], 40), seeded(1, PROMPTS[1], 40)]))
    steps = [next_step(worker) for _ in range(5)]
    worker.send(Submit([seeded(2, PROMPTS[2], 40)]))
    steps += [next_step(worker) for _ in range(3)]
    worker.send(Submit([seeded(3, PROMPTS[3], 40)]))
    assert tokens_by_row(steps + steps_until_idle(worker)) == alone


def test_a_row_is_alone_in_company_and_alone_again(worker: AnyWorker) -> None:
    """Alone, its steps begin before the last one's tokens are read. Others come, one by one, and leave; all have the
    tokens that they have alone."""
    alone = {i: generate(worker, seeded(i, PROMPTS[i], length))[i] for i, length in enumerate((60, 7, 12))}
    worker.send(Submit([seeded(0, PROMPTS[0], 60)]))
    steps = [next_step(worker) for _ in range(6)]
    worker.send(Submit([seeded(1, PROMPTS[1], 7)]))
    while not any(token.row_id == 1 and token.finish for token in row_tokens(steps)):
        steps.append(next_step(worker))
    steps += [next_step(worker) for _ in range(6)]
    worker.send(Submit([seeded(2, PROMPTS[2], 12)]))
    assert tokens_by_row(steps + steps_until_idle(worker)) == alone


def test_prefill_keeps_to_its_budget_and_reports_progress(worker: AnyWorker) -> None:
    """Chunks of at most 64 tokens, the last report is the whole prompt."""
    worker.send(Submit([row(1, list(range(150)), 1)]))
    progress = [report for step in steps_until_idle(worker) for report in step.prefill]
    assert progress == [
        RowPrefill(1, 64, 150),
        RowPrefill(1, 128, 150),
        RowPrefill(1, 150, 150),
    ]


def test_a_short_prompt_does_not_wait_for_a_long_one(worker: AnyWorker) -> None:
    """Submitted after a prompt of 300 tokens, a prompt of 4 has all its tokens first."""
    worker.send(Submit([row(1, [8] * 300, 2), row(2, [9] * 4, 2)]))
    finished = [token.row_id for token in row_tokens(steps_until_idle(worker)) if token.finish]
    assert finished == [2, 1]


def test_cancelled_rows_leave_in_prefill_and_in_decode(worker: AnyWorker) -> None:
    """A row in prefill and one that decodes are gone one step later; the third keeps its tokens."""
    alone = generate(worker, seeded(3, PROMPTS[3], 60))[3]
    worker.send(Submit([row(1, [5], 400), row(2, [8] * 400, 400), seeded(3, PROMPTS[3], 60)]))
    steps = [next_step(worker), next_step(worker)]
    assert {token.row_id for token in steps[1].tokens} == {1, 3}
    assert steps[1].prefill[0].row_id == 2
    worker.send(Cancel([1, 2]))
    steps.append(next_step(worker))
    while not steps[-1].removed:
        steps.append(next_step(worker))
    assert (steps[-1].removed, steps[-1].active_rows) == ([1, 2], 1)
    assert len(steps) <= 4  # a step may have begun, and another been sent, when the cancel came
    assert tokens_by_row(steps + steps_until_idle(worker))[3] == alone


def test_all_rows_cancelled_leave_an_engine_that_serves_the_next(worker: AnyWorker) -> None:
    """An emptied batch takes rows again, and its KV cache is given back."""
    worker.send(Submit([row(1, [5], 400), row(2, [8] * 400, 400)]))
    next_step(worker)
    worker.send(Cancel([1, 2]))
    assert steps_until_idle(worker)[-1].removed == [1, 2]
    worker.send(Submit([row(3, [5], 2)]))
    last = steps_until_idle(worker)[-1]
    assert [token.row_id for token in last.tokens] == [3]
    assert last.kv_bytes == 0


def test_a_stop_id_ends_the_row_and_is_reported(
    worker: AnyWorker, reference: Callable[[tuple[int, ...], int], list[int]]
) -> None:
    """The stop id is the last token, and the row ends as stopped."""
    greedy = reference((7,), 20)
    stop = greedy[6]
    expected = greedy[: greedy.index(stop) + 1]
    worker.send(Submit([row(1, [7], 20, stop_ids=[stop])]))
    tokens = row_tokens(steps_until_idle(worker))
    assert [token.token for token in tokens] == expected
    assert tokens[-1].finish == STOPPED


def test_no_stop_id_comes_before_min_tokens(
    worker: AnyWorker, reference: Callable[[tuple[int, ...], int], list[int]]
) -> None:
    """A stop id that greedy decoding would take first is not taken in the first five tokens."""
    stop = reference((7,), 1)[0]
    said = generate(worker, row(1, [7], 12, stop_ids=[stop], min_tokens=5))[1]
    assert stop not in said[:5]
    assert len(said) >= 5


def test_max_tokens_ends_the_row_as_length(worker: AnyWorker) -> None:
    """Output of an earlier engine counts."""
    worker.send(Submit([row(1, [7], 3), row(2, [7], 3, output=[1, 2])]))
    tokens = row_tokens(steps_until_idle(worker))
    assert [(token.row_id, token.finish) for token in tokens] == [(1, 0), (2, LENGTH), (1, 0), (1, LENGTH)]


def test_rows_that_cannot_be_taken_fail_alone(worker: AnyWorker) -> None:
    """A bad token and bad settings each fail their row; the good row is served."""
    worker.send(Submit([row(1, [VOCAB_SIZE]), row(2, [7], temperature=-1.0), row(3, [7], 2)]))
    steps = steps_until_idle(worker)
    assert [failure.row_id for failure in steps[0].failed] == [1, 2]
    assert "temperature" in steps[0].failed[1].reason
    assert list(tokens_by_row(steps)) == [3]


def test_logprobs_come_for_the_rows_that_asked(worker: AnyWorker) -> None:
    """The greedy token is the likeliest; the row beside has none."""
    worker.send(Submit([row(1, [7], 4, top_logprobs=3), row(2, [8], 4)]))
    tokens = row_tokens(steps_until_idle(worker))
    assert [token.logprobs for token in tokens if token.row_id == 2] == [None] * 4
    for token in tokens:
        if token.logprobs:
            assert token.logprobs.top_ids[0] == token.token
            assert len(token.logprobs.top_ids) == 3
            assert token.logprobs.top_logprobs[0] == token.logprobs.logprob <= 0


def test_loaded_tells_the_models_facts(folder: Path) -> None:
    """Context, vocabulary, type, end token; a token has 2 layers x 2 heads x 16 x keys and values x 4 bytes."""
    with started(ThreadWorker) as worker:
        loaded: Loaded = load(worker, str(folder))
    assert (loaded.context_length, loaded.vocab_size) == (CONTEXT_LENGTH, VOCAB_SIZE)
    assert (loaded.dtype, loaded.eos_ids, loaded.reproducible) == ("float32", [1], True)
    assert loaded.kv_bytes_per_token == 2 * 2 * 16 * 2 * 4
    assert loaded.memory_bytes > loaded.weights_bytes > 0
