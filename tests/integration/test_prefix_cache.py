"""The prefix cache in the engine: what is shared, with whom, within which bound, and that the text never changes by
it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_grpc.engine.messages import Cancel, Row, Step, Submit
from tests.helpers.llama import VOCAB_SIZE, make_llama
from tests.helpers.worker import ThreadWorker, load, next_step, row, started, steps_until_idle, tokens_by_row

MEBIBYTE = 1 << 20
OTHER_CACHES: dict[str, dict[str, Any]] = {
    "gemma3_text": {"head_dim": 16, "sliding_window": 16, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    "lfm2": {
        "norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3, "block_dim": 64, "block_ff_dim": 128,
        "block_multiple_of": 32, "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False,
        "rope_theta": 10000.0, "layer_types": ["conv", "full_attention"],
    },
}  # fmt: skip
Start = Callable[..., AbstractContextManager[ThreadWorker]]

pytestmark = pytest.mark.skipif(mx.default_device().type != mx.DeviceType.cpu, reason="equality is the CPU's")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder."""
    return make_llama(tmp_path_factory.mktemp("llama"))


@contextmanager
def cached(folder: Path, prefix_cache_bytes: int = 16 * MEBIBYTE) -> Iterator[ThreadWorker]:
    """A worker with a prefix cache."""
    with started(ThreadWorker) as worker:
        load(worker, str(folder), prefill_step_tokens=64, prefix_cache_bytes=prefix_cache_bytes)
        assert isinstance(worker, ThreadWorker)
        yield worker


def run(worker: ThreadWorker, *rows: Row) -> list[Step]:
    worker.send(Submit(list(rows)))
    return steps_until_idle(worker)


def cached_tokens(steps: list[Step], row_id: int) -> int:
    """What the row's prefill says came from the cache."""
    return next(progress.cached for step in steps for progress in step.prefill if progress.row_id == row_id)


def tokens(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(3, VOCAB_SIZE), k=count)


def test_the_next_turn_prefills_only_what_is_new(folder: Path) -> None:
    """A prompt that begins with an ended request's prompt and output starts after them, and says the same as
    without."""
    first, question = tokens(80), tokens(9, seed=1)
    with cached(folder) as worker:
        answer = tokens_by_row(run(worker, row(1, first, 8)))[1]
        second = first + answer + question
        steps = run(worker, row(2, second, 8))
        bypassed = run(worker, row(3, second, 8, use_cache=False))
    assert cached_tokens(steps, 2) == len(first) + len(answer) - 1, "the answer's last token was never fed"
    assert cached_tokens(bypassed, 3) == 0
    assert tokens_by_row(steps)[2] == tokens_by_row(bypassed)[3]


def test_a_shared_prefix_is_found_across_requests(folder: Path) -> None:
    """Prompts that part ways share what is before the parting."""
    shared = tokens(60)
    with cached(folder) as worker:
        run(worker, row(1, shared + tokens(20, seed=1)))
        steps = run(worker, row(2, shared + tokens(20, seed=2)))
    assert cached_tokens(steps, 2) == len(shared)


def test_a_prompt_that_is_held_whole_keeps_one_token_back(folder: Path) -> None:
    """The last token has to be fed, or there would be no next one."""
    prompt = tokens(50)
    with cached(folder) as worker:
        first = run(worker, row(1, prompt))
        again = run(worker, row(2, prompt))
    assert cached_tokens(again, 2) == len(prompt) - 1
    assert tokens_by_row(again)[2] == tokens_by_row(first)[1]


def test_salts_keep_tenants_apart(folder: Path) -> None:
    """Under another salt nothing is found, under the same one all is."""
    prompt = tokens(50)
    with cached(folder) as worker:
        run(worker, row(1, prompt, cache_salt="ours"))
        assert cached_tokens(run(worker, row(2, prompt, cache_salt="theirs")), 2) == 0
        assert cached_tokens(run(worker, row(3, prompt)), 3) == 0
        assert cached_tokens(run(worker, row(4, prompt, cache_salt="ours")), 4) == len(prompt) - 1


def test_a_bypassing_request_leaves_nothing_behind(folder: Path) -> None:
    """Neither read nor written."""
    prompt = tokens(50)
    with cached(folder) as worker:
        run(worker, row(1, prompt, use_cache=False))
        assert cached_tokens(run(worker, row(2, prompt)), 2) == 0


def test_cancelled_work_is_kept(folder: Path) -> None:
    """What a client that went away has paid for serves the next one."""
    prompt = tokens(50)
    with cached(folder) as worker:
        worker.send(Submit([row(1, prompt, 400)]))
        while not next_step(worker).tokens:
            pass
        worker.send(Cancel([1]))
        while next_step(worker).removed != [1]:
            pass
        steps = run(worker, row(2, prompt))
    assert cached_tokens(steps, 2) == len(prompt) - 1


def test_the_cache_stays_within_its_bytes(folder: Path) -> None:
    """Older entries go; one that is too large by itself is not kept; without bytes there is no cache."""
    with cached(folder, prefix_cache_bytes=MEBIBYTE // 4) as worker:
        for number in range(12):
            steps = run(worker, row(number, tokens(60, seed=number)))
            assert steps[-1].prefix_cache_bytes <= MEBIBYTE // 4
        assert cached_tokens(run(worker, row(50, tokens(60, seed=11))), 50) > 0
        assert cached_tokens(run(worker, row(51, tokens(60, seed=0))), 51) == 0
    with cached(folder, prefix_cache_bytes=0) as worker:
        run(worker, row(1, tokens(60)))
        assert cached_tokens(run(worker, row(2, tokens(60))), 2) == 0


def test_random_conversations_say_what_they_say_without_a_cache(folder: Path) -> None:
    """Several chats interleaved over many turns, greedy and seeded: every token as if there were no cache."""
    dice = random.Random(3)
    chats = {name: tokens(30, seed=7) + tokens(5, seed=name) for name in range(4)}
    found = 0
    with cached(folder, prefix_cache_bytes=2 * MEBIBYTE) as worker, cached(folder, prefix_cache_bytes=0) as plain:
        for turn in range(30):
            speakers = dice.sample(sorted(chats), k=dice.randint(1, 4))
            rows = [
                row(turn * 10 + name, chats[name], dice.randint(1, 9), temperature=float(name % 2), seed=turn)
                for name in speakers
            ]
            steps = run(worker, *rows)
            answers = tokens_by_row(steps)
            assert answers == tokens_by_row(run(plain, *rows))
            found += sum(cached_tokens(steps, wanted.row_id) for wanted in rows)
            for name in speakers:
                said = answers[turn * 10 + name]
                chats[name] = (chats[name] + said + tokens(dice.randint(1, 12), seed=turn))[:350]
    assert found > 0


@pytest.mark.parametrize("model_type", OTHER_CACHES)
def test_models_whose_caches_cannot_be_trimmed_are_never_wrong(tmp_path: Path, model_type: str) -> None:
    """Windows and recurrent states continue where they ended, or start anew; the tokens are those without a cache."""
    folder = make_llama(tmp_path, model_type=model_type, **OTHER_CACHES[model_type])
    first = tokens(50)
    with cached(folder) as worker, cached(folder, prefix_cache_bytes=0) as plain:
        answer = tokens_by_row(run(worker, row(1, first, 8)))[1]
        for number, prompt in enumerate((first, first + answer + tokens(5), first[:40] + tokens(20, seed=2)), start=2):
            assert tokens_by_row(run(worker, row(number, prompt))) == tokens_by_row(run(plain, row(number, prompt)))
