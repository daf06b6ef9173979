"""The worker's loop with the scripted engine: in a thread and in a real child process alike."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from mlx_grpc.engine.messages import (
    Cancel,
    Close,
    FromWorker,
    Loaded,
    LoadFailed,
    RowFailed,
    RowPrefill,
    Step,
    StepBegan,
    Submit,
    ToWorker,
)
from mlx_grpc.engine.messages import Load as LoadMessage
from mlx_grpc.engine.scripted.engine import ScriptedEngine, open_scripted
from mlx_grpc.engine.scripted.script import EOS_ID, Fault, Script, token_bytes
from mlx_grpc.engine.worker.loop import run
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


@pytest.fixture(params=[ThreadWorker, ChildWorker], ids=["thread", "process"])
def worker(request: pytest.FixtureRequest) -> Iterator[AnyWorker]:
    """A worker that has loaded nothing yet."""
    kind: Callable[[], AnyWorker] = request.param
    with started(kind) as worker:
        yield worker


@pytest.fixture
def gated() -> Iterator[tuple[ThreadWorker, threading.Semaphore]]:
    """A worker in a thread that makes a step for each release of the semaphore."""
    gate = threading.Semaphore(0)
    with started(lambda: ThreadWorker(functools.partial(open_scripted, gate=gate.acquire))) as worker:
        assert isinstance(worker, ThreadWorker)
        yield worker, gate
        gate.release(1000)


def text(tokens: list[int]) -> str:
    return b"".join(map(token_bytes, tokens)).decode()


def test_a_reply_is_said_byte_by_byte_and_ended_by_its_stop_id(worker: AnyWorker) -> None:
    """The reply's bytes are its tokens, the end token comes last and finishes the row as stopped."""
    load(worker, Script(replies={"hello": "añ"}))
    worker.send(Submit([row(1, "say hello", max_tokens=99, stop_ids=[EOS_ID])]))
    tokens = row_tokens(steps_until_idle(worker))
    assert [token.token for token in tokens] == [*"añ".encode(), EOS_ID]
    assert [token.finish for token in tokens] == [0, 0, 0, 1]


def test_rows_submitted_together_enter_together(worker: AnyWorker) -> None:
    """Two rows of one message decode in the same steps."""
    load(worker, Script())
    worker.send(Submit([row(1, "a", 3), row(2, "b", 3)]))
    steps = steps_until_idle(worker)
    assert [[token.row_id for token in step.tokens] for step in steps] == [[], [1, 2], [1, 2], [1, 2]]


def test_a_resumed_row_goes_on_as_it_would_have(worker: AnyWorker) -> None:
    """Prompt and the first tokens give the rest of the tokens, seeded too; max_tokens counts those before."""
    load(worker, Script())
    whole = generate(worker, row(1, "once", 10, temperature=1.0, seed=7))[1]
    rest = generate(worker, row(2, "once", 10, temperature=1.0, seed=7, output=whole[:4]))[2]
    assert whole[:4] + rest == whole
    assert len(whole) == 10


def test_the_seed_counts_only_at_a_temperature(worker: AnyWorker) -> None:
    """Another seed gives other words at temperature 1 and the same words when greedy."""
    load(worker, Script())
    said = generate(
        worker,
        *(row(seed, "once", seed=seed, temperature=1.0) for seed in (1, 2)),
        *(row(seed, "once", seed=seed) for seed in (3, 4)),
    )
    assert said[1] != said[2]
    assert said[3] == said[4]


def test_a_row_that_cannot_enter_fails_alone(worker: AnyWorker) -> None:
    """A token outside the vocabulary fails its row; the row beside it is served."""
    load(worker, Script())
    worker.send(Submit([row(1, [9999]), row(2, "b", 2)]))
    steps = steps_until_idle(worker)
    assert steps[0].failed == [RowFailed(1, "token id 9999 is outside the vocabulary of 512")]
    assert list(tokens_by_row(steps)) == [2]


def test_rows_past_the_batch_are_refused(worker: AnyWorker) -> None:
    """The batch takes max_rows rows and fails the next."""
    load(worker, Script(), max_rows=1)
    worker.send(Submit([row(1, "a", 1), row(2, "b", 1)]))
    assert [failure.row_id for failure in next_step(worker).failed] == [2]


def test_a_failure_is_told_when_nothing_else_happens(worker: AnyWorker) -> None:
    """A step message with the failure comes although no row is active."""
    load(worker, Script())
    worker.send(Submit([row(1, "")]))
    step = next_step(worker)
    assert (step.failed, step.active_rows) == ([RowFailed(1, "the prompt is empty")], 0)


def test_prefill_shares_its_budget_and_reports_progress(worker: AnyWorker) -> None:
    """Ten tokens a step: the first prompt takes what it can, the next has the rest."""
    load(worker, Script(), prefill_step_tokens=10)
    worker.send(Submit([row(1, [1] * 15, 1), row(2, [2] * 9, 1)]))
    steps = steps_until_idle(worker)
    assert [step.prefill for step in steps[:3]] == [
        [RowPrefill(1, 10, 15)],
        [RowPrefill(1, 15, 15), RowPrefill(2, 5, 9)],
        [RowPrefill(2, 9, 9)],
    ]


def test_the_gate_paces_steps_and_a_cancelled_row_leaves_one_step_later(
    gated: tuple[ThreadWorker, threading.Semaphore],
) -> None:
    """A row in prefill and one that decodes are cancelled during a step, and gone in the next."""
    worker, gate = gated
    load(worker, Script(), prefill_step_tokens=4)
    worker.send(Submit([row(1, "a", 99), row(2, [7] * 50, 99), row(3, [8], 99)]))
    gate.release(2)
    assert next_step(worker).prefill == [RowPrefill(1, 1, 1), RowPrefill(2, 3, 50)]
    assert [token.row_id for token in next_step(worker).tokens] == [1]
    worker.send(Cancel([1, 2]))
    gate.release(2)
    next_step(worker)  # the step that had begun when the cancel came
    step = next_step(worker)
    assert (step.removed, step.active_rows) == ([1, 2], 1)


def test_a_row_cancelled_before_it_enters_is_reported(
    gated: tuple[ThreadWorker, threading.Semaphore],
) -> None:
    """Submit and cancel in one drain: the row never runs and is told as removed; unknown ids are ignored."""
    worker, gate = gated
    load(worker, Script())
    worker.send(Submit([row(1, "a", 3)]))
    worker.send(Submit([row(2, "b", 3)]))
    worker.send(Cancel([2, 77]))
    gate.release(9)
    steps = steps_until_idle(worker)
    assert [row_id for step in steps for row_id in step.removed] == [2]
    assert 2 not in tokens_by_row(steps)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ('script:{"load_error": "no room"}', "no room"),
        ("script:{", "the script is not valid"),
        ('script:{"gate_path": "/nowhere"}', "the gate at /nowhere cannot be opened"),
        ('script:{"speed": 1}', "the script is not valid"),
    ],
)
def test_a_script_that_does_not_load_gives_one_line(worker: AnyWorker, path: str, reason: str) -> None:
    """LoadFailed with the reason, and the worker ends."""
    worker.send(LoadMessage(path, max_rows=1))
    answer = worker.receive()
    assert isinstance(answer, LoadFailed)
    assert answer.reason.startswith(reason)
    assert "\n" not in answer.reason


def test_min_tokens_bias_and_logprobs_are_honoured(worker: AnyWorker) -> None:
    """No stop id comes before min_tokens, a banned token never; the top list starts with the chosen one."""
    load(worker, Script(replies={"x": "ab"}))
    worker.send(
        Submit(
            [
                row(1, "x", 9, stop_ids=[EOS_ID], min_tokens=5, top_logprobs=2),
                row(2, "x", 2, logit_bias={97: -100.0}),
            ]
        )
    )
    steps = steps_until_idle(worker)
    said = tokens_by_row(steps)
    assert said[1][:2] == [97, 98]
    assert len(said[1]) >= 5
    assert EOS_ID not in said[1][:5]
    assert 97 not in said[2]
    first = row_tokens(steps)[0]
    assert first.logprobs is not None
    assert first.logprobs.top_ids[0] == first.token
    assert len(first.logprobs.top_ids) == 2
    assert first.logprobs.top_logprobs[0] == first.logprobs.logprob < 0


def test_a_failing_row_leaves_the_others_alone(worker: AnyWorker) -> None:
    """The fault `fail` ends one row at its third token."""
    load(worker, Script(faults=[Fault("bad", "fail", at_output=2)]))
    worker.send(Submit([row(1, "bad", 5), row(2, "good", 5)]))
    steps = steps_until_idle(worker)
    assert [failure.row_id for step in steps for failure in step.failed] == [1]
    assert {row_id: len(said) for row_id, said in tokens_by_row(steps).items()} == {1: 2, 2: 5}


def test_an_error_of_a_whole_step_ends_the_loop() -> None:
    """The engine's exception is raised out of `run`."""

    def broken_gate() -> None:
        raise RuntimeError("the device is gone")

    inbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
    inbox.put(LoadMessage("script:", max_rows=1))
    inbox.put(Submit([row(1, "a")]))
    with pytest.raises(RuntimeError, match="the device is gone"):
        run(inbox, lambda _: None, functools.partial(open_scripted, gate=broken_gate))


def test_an_engine_without_work_rests_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without rows it is told so, once until the next request."""
    monkeypatch.setattr("mlx_grpc.engine.worker.loop.REST_SECONDS", 0.01)
    inbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
    rests = 0

    class Resting(ScriptedEngine):
        def rest(self) -> None:
            nonlocal rests
            rests += 1
            inbox.put(Submit([row(rests, "a", 2)]) if rests < 3 else Close())

    inbox.put(LoadMessage("script:", max_rows=1))
    run(inbox, lambda _: None, lambda load: Resting(Script(), load))
    assert rests == 3


def test_a_long_step_is_announced_before_it_is_made() -> None:
    """Who waits for it then knows how long it may take; a short one costs no message."""
    inbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
    sent: list[FromWorker] = []

    class Slow(ScriptedEngine):
        def expected_seconds(self) -> float:
            return 7.0 if len(sent) < 2 else 0.1

    inbox.put(LoadMessage("script:", max_rows=1))
    inbox.put(Submit([row(1, "a", 2)]))

    def outbox(message: FromWorker) -> None:
        sent.append(message)
        if isinstance(message, Step) and not message.active_rows:
            inbox.put(Close())

    run(inbox, outbox, lambda load: Slow(Script(), load))
    kinds = [type(message) for message in sent]
    assert kinds[:3] == [Loaded, StepBegan, Step]
    assert kinds.count(StepBegan) == 1
    assert sent[1] == StepBegan(7.0)
