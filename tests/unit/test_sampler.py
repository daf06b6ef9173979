"""The batch's sampler: seeds, settings of each row, penalties, forbidden tokens, log-probabilities, bad input."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.sample_utils import make_logits_processors

from mlx_grpc.engine.messages import Row, SamplingParams
from mlx_grpc.engine.sampling.sampler import BatchSampler

VOCAB = 3000
TABLE = mx.random.normal((64, VOCAB), key=mx.random.key(9)) * 3


def row(row_id: int = 0, prompt: tuple[int, ...] = (5, 6, 7), output: tuple[int, ...] = (), **fields: Any) -> Row:
    """A row of the scripted model below; fields of Row by name, the others of its sampling."""
    own = {name: fields.pop(name) for name in ("min_tokens", "stop_ids", "top_logprobs") if name in fields}
    return Row(
        row_id,
        list(prompt),
        list(output),
        max_tokens=100,
        min_tokens=own.get("min_tokens", 0),
        stop_ids=own.get("stop_ids", []),
        sampling=SamplingParams(**fields),
        top_logprobs=own.get("top_logprobs", -1),
    )


def model(inputs: mx.array) -> mx.array:
    """A model whose logits follow from the newest token alone. [rows] -> [rows, VOCAB]"""
    return TABLE[inputs % len(TABLE)]


def integers(tokens: mx.array) -> Any:
    """Tokens as Python's integers, in lists as deep as the array."""
    return np.array(tokens).tolist()


def generate(rows: list[Row], steps: int, order: list[int] | None = None) -> dict[int, list[int]]:
    """Run rows together, from prompt and output; each row's new tokens by row_id. Nothing waits between steps."""
    sampler = BatchSampler(VOCAB)
    rows = rows if order is None else [rows[i] for i in order]
    for each in rows:
        sampler.add(each)
    ids = [each.row_id for each in rows]
    inputs = mx.array([(each.prompt + each.output)[-1] for each in rows])
    produced = []
    for _ in range(steps):
        inputs = sampler.sample(model(inputs), ids, inputs).tokens
        produced.append(inputs)
    return dict(zip(ids, integers(mx.stack(produced, axis=1)), strict=True))


def sample_once(rows: list[Row], logits: mx.array) -> list[int]:
    """One token for each row, from logits [rows, vocab]."""
    sampler = BatchSampler(logits.shape[-1])
    for each in rows:
        sampler.add(each)
    inputs = mx.array([(each.prompt + each.output)[-1] for each in rows])
    result: list[int] = integers(sampler.sample(logits, [each.row_id for each in rows], inputs).tokens)
    return result


def processed(each: Row, logits: mx.array) -> np.ndarray:
    """A row's logits after bias and penalties, but for a constant: all log-probabilities that can be asked for."""
    sampler = BatchSampler(logits.size)
    sampler.add(each)
    inputs = mx.array([(each.prompt + each.output)[-1]])
    sampled = sampler.sample(logits[None], [each.row_id], inputs)
    assert sampled.logprobs[0] is not None
    _, ids, values = sampled.logprobs[0]
    result = np.zeros(logits.size)
    result[np.array(ids)] = np.array(values)
    return result


SETTINGS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.5, "top_k": 20},
    {"temperature": 1.0, "min_p": 0.02},
    {"temperature": 0.8, "top_p": 0.95, "min_p": 0.001, "top_k": 100},
    {"temperature": 1.0, "repetition_penalty": 1.3, "repetition_window": 4},
    {"temperature": 1.0, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    {"temperature": 0.0, "repetition_penalty": 1.2, "frequency_penalty": 0.4},
    {"temperature": 1.0, "top_p": 0.5, "logit_bias": {3: 4.0, 9: -100.0}},
    {"temperature": 1.0, "top_p": 0.8, "min_tokens": 3, "stop_ids": [0, 1, 2]},
]


def company(seed: int = 100) -> list[Row]:
    """Fifteen rows of every kind, with ids from 1."""
    return [
        row(i, prompt=tuple(range(i, 2 * i + 1)), seed=seed + i, **SETTINGS[i % len(SETTINGS)]) for i in range(1, 16)
    ]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_seeded_row_gives_the_same_tokens_in_company(setting: dict[str, Any]) -> None:
    """Twelve tokens alone, among fifteen others, and in another order, are the same."""
    mine = row(0, seed=42, **setting)
    alone = generate([mine], 12)[0]
    assert generate([mine, *company()], 12)[0] == alone
    assert generate([mine, *company(7)], 12, order=[*range(15, 7, -1), 0, *range(1, 8)])[0] == alone


@settings(deadline=None, max_examples=25)
@given(
    setting=st.sampled_from(SETTINGS),
    cut=st.integers(0, 9),
    seed=st.integers(-(2**63), 2**64 - 1),
    after=st.lists(st.sampled_from(range(15)), max_size=4, unique=True),
)
def test_a_row_resumed_from_its_output_goes_on_as_before(
    setting: dict[str, Any], cut: int, seed: int, after: list[int]
) -> None:
    """Cut anywhere and resumed from prompt and output, in other company, a row ends in the same tokens."""
    whole = generate([row(0, seed=seed, **setting)], 10)[0]
    resumed = row(0, output=tuple(whole[:cut]), seed=seed, **setting)
    others = company()
    assert generate([*(others[i] for i in after), resumed], 10 - cut)[0] == whole[cut:]


def test_rows_that_join_and_leave_do_not_change_the_others() -> None:
    """A row keeps its tokens while others join after a call of their own, leave, and change places."""
    mine = row(0, seed=42, temperature=1.0, repetition_penalty=1.3, frequency_penalty=0.5)
    expected = generate([mine], 6)[0]
    sampler = BatchSampler(VOCAB)
    inputs: dict[int, mx.array] = {}
    tokens: list[mx.array] = []

    def step(*ids: int) -> None:
        fed = mx.concatenate([inputs[i] for i in ids])
        sampled = sampler.sample(model(fed), list(ids), fed).tokens
        for n, i in enumerate(ids):
            inputs[i] = sampled[n : n + 1]

    def join(each: Row) -> None:
        sampler.add(each)
        inputs[each.row_id] = mx.array([(each.prompt + each.output)[-1]], dtype=mx.uint32)
        step(each.row_id)

    join(mine)
    tokens.append(inputs[0])
    join(company()[4])
    for ids in ([0, 5], [5, 0]):
        step(*ids)
        tokens.append(inputs[0])
    sampler.remove([5])
    join(company()[5])
    join(company()[6])
    for ids in ([6, 0, 7], [7, 6, 0], [0]):
        step(*ids)
        tokens.append(inputs[0])
    assert mx.concatenate(tokens).tolist() == expected


def test_greedy_is_argmax() -> None:
    """Temperature 0 takes the best logit, in every float type, whatever the filters say."""
    logits = mx.random.normal((3, VOCAB), key=mx.random.key(1))
    for dtype in (mx.float32, mx.float16, mx.bfloat16):
        typed = logits.astype(dtype)
        rows = [row(0), row(1, top_p=0.3), row(2, top_k=3, min_p=0.5)]
        assert sample_once(rows, typed) == mx.argmax(typed, axis=-1).tolist()


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_logits_draw_as_their_float32_values(dtype: mx.Dtype) -> None:
    """All arithmetic is float32: logits of 16 bits give the tokens of the same numbers in 32."""
    logits = (mx.random.normal((15, VOCAB), key=mx.random.key(2)) * 3).astype(dtype)
    assert sample_once(company(), logits) == sample_once(company(), logits.astype(mx.float32))


def test_the_callers_logits_are_not_changed() -> None:
    """Bias, penalties and bans work on a copy."""
    logits = model(mx.arange(15))
    before = mx.array(np.array(logits))
    sample_once(company(), logits)
    assert mx.array_equal(logits, before)


@pytest.mark.parametrize("penalty", [1.3, 0.8])
@pytest.mark.parametrize("window", [1, 3, 20])
def test_repetition_penalty_is_mlx_lms(penalty: float, window: int) -> None:
    """Over the last tokens of prompt and output, once for each distinct token, sign-aware."""
    logits = mx.random.normal((12,), key=mx.random.key(4))
    each = row(0, (1, 2, 3, 2), (2, 4), repetition_penalty=penalty, repetition_window=window, top_logprobs=12)
    context = mx.array(each.prompt + each.output)
    (processor,) = make_logits_processors(repetition_penalty=penalty, repetition_context_size=window)
    expected = processor(context, mx.array(logits[None]))[0]
    expected = expected - mx.logsumexp(expected)
    np.testing.assert_allclose(processed(each, logits), np.array(expected), atol=1e-6)


def test_presence_and_frequency_count_the_output_only() -> None:
    """OpenAI's definition: logit - presence - count * frequency, for tokens of the output, all of it."""
    logits = mx.random.normal((40,), key=mx.random.key(4))
    output = (3, 4, 3, *[9] * 25)
    each = row(0, (1, 2, 3), output, presence_penalty=0.5, frequency_penalty=0.25, top_logprobs=40)
    counts = np.bincount(output, minlength=40)
    expected = np.array(logits) - 0.5 * (counts > 0) - 0.25 * counts
    expected -= np.log(np.exp(expected).sum())
    np.testing.assert_allclose(processed(each, logits), expected, atol=1e-5)


def test_penalties_of_a_fresh_row_leave_its_prompt_alone() -> None:
    """Presence and frequency change nothing before the first token of output."""
    logits = mx.random.normal((40,), key=mx.random.key(4))
    plain = processed(row(0, top_logprobs=40), logits)
    each = row(0, presence_penalty=2.0, frequency_penalty=2.0, top_logprobs=40)
    np.testing.assert_array_equal(processed(each, logits), plain)


def test_bias_comes_before_penalties() -> None:
    """The bias is added first, so that the repetition penalty sees its sign."""
    logits = mx.zeros((4,))
    each = row(0, (1,), logit_bias={1: -2.0, 2: 1.0}, repetition_penalty=2.0, top_logprobs=4)
    expected = np.array([0.0, -4.0, 1.0, 0.0])
    expected -= np.log(np.exp(expected).sum())
    np.testing.assert_allclose(processed(each, logits), expected, atol=1e-6)


def test_stop_ids_are_impossible_until_min_tokens() -> None:
    """The likeliest token is a stop id: it comes as soon as position min_tokens allows it, and not before."""
    sampler = BatchSampler(5)
    sampler.add(row(0, (1,), (1,), min_tokens=3, stop_ids=[4, 2, 99]))
    sampler.add(row(1, (1,), temperature=1.0, min_tokens=3, stop_ids=[4, 2, 99]))
    logits = mx.array([[0.0, 1.0, 50.0, 0.0, 60.0]] * 2)
    inputs = mx.array([1, 1])
    tokens = [integers(sampler.sample(logits, [0, 1], inputs).tokens) for _ in range(4)]
    assert [first for first, _ in tokens] == [1, 1, 4, 4]
    assert all(second in (0, 1, 3) for _, second in tokens[:3])
    assert tokens[3][1] == 4


def test_logprobs_are_the_models_after_penalties_and_before_filters() -> None:
    """The chosen token's and the best ones', best first, each row as many as it asked for; the others get None."""
    logits = mx.random.normal((4, 50), key=mx.random.key(8)) * 2
    rows = [
        row(0),
        row(1, top_logprobs=0),
        row(2, top_logprobs=3),
        row(3, temperature=2.0, top_k=1, top_logprobs=20),
    ]
    sampler = BatchSampler(50)
    for each in rows:
        sampler.add(each)
    sampled = sampler.sample(logits, [0, 1, 2, 3], mx.array([7] * 4))
    mx.eval(sampled.arrays())
    reference = np.array(logits, dtype=np.float64)
    reference -= np.log(np.exp(reference).sum(-1, keepdims=True))
    assert sampled.logprobs[0] is None
    for i, count in ((1, 0), (2, 3), (3, 20)):
        report = sampled.logprobs[i]
        assert report is not None
        logprob, ids, values = report
        assert logprob.item() == pytest.approx(reference[i][sampled.tokens[i].item()], abs=1e-5)
        assert ids.tolist() == np.argsort(-reference[i])[:count].tolist()
        np.testing.assert_allclose(np.array(values), reference[i][ids.tolist()], atol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_row_of_bad_logits_harms_no_other(bad: float, everywhere: bool) -> None:
    """NaN or infinity from the model gives some token of the vocabulary; the other rows' tokens do not change."""
    logits = model(mx.arange(15))
    healthy = sample_once(company(), logits)
    for sick in range(15):
        broken = mx.array(np.array(logits))
        broken[sick, slice(None) if everywhere else slice(10, 12)] = bad
        tokens = sample_once(company(), broken)
        assert 0 <= tokens[sick] < VOCAB
        assert [t for i, t in enumerate(tokens) if i != sick] == [t for i, t in enumerate(healthy) if i != sick]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"top_k": -1}, "top_k"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": 1.1, "repetition_window": 0}, "repetition_window"),
        ({"presence_penalty": math.inf}, "presence_penalty"),
        ({"frequency_penalty": math.nan}, "frequency_penalty"),
        ({"logit_bias": {VOCAB: 1.0}}, "logit_bias"),
        ({"logit_bias": {1: math.nan}}, "logit_bias"),
        ({"prompt": (1, VOCAB)}, "prompt"),
        ({"prompt": ()}, "prompt"),
    ],
)
def test_what_cannot_be_sampled_is_refused_by_name(fields: dict[str, Any], name: str) -> None:
    """Adding such a row raises one line that names the setting, and the row is not in the batch."""
    sampler = BatchSampler(VOCAB)
    with pytest.raises(ValueError, match=name) as caught:
        sampler.add(row(0, **fields))
    assert "\n" not in str(caught.value)
    sampler.add(row(0))


def test_a_row_is_added_once() -> None:
    """A second row of the same id is refused, until the first has been removed."""
    sampler = BatchSampler(VOCAB)
    sampler.add(row(0))
    with pytest.raises(ValueError, match="row 0"):
        sampler.add(row(0))
    sampler.remove([0, 12345])
    sampler.add(row(0))
