"""Who resumes after a crash, who is poison, and when a model is given up."""

from __future__ import annotations

import pytest

from mlx_grpc.service.hosting.recovery import (
    MAX_BACKOFF_SECONDS,
    MAX_CRASHES_WITHOUT_PROGRESS,
    MAX_IDLE_CRASHES,
    MAX_RESUMES,
    RAISE_AFTER_STEPS,
    STABLE_SECONDS,
    Recovery,
    Verdict,
)


class Engine:
    """Plays an engine against the policy: rows enter as it allows, each delivers a token unless it is bad."""

    def __init__(self, rows: int, bad: set[int]) -> None:
        self.recovery = Recovery(rows)
        self.bad = bad
        self.alive = list(range(rows))
        self.running = list(self.alive)
        self.crashes = 0
        self.poison: list[int] = []
        self.exhausted: list[int] = []

    def crash(self) -> Verdict:
        """The engine dies under those that run."""
        self.crashes += 1
        verdict = self.recovery.crashed(self.running, "killed", now_seconds=float(self.crashes))
        self.poison += verdict.poison
        self.exhausted += verdict.exhausted
        self.alive = [key for key in self.alive if key not in verdict.poison + verdict.exhausted]
        self.running = []
        return verdict

    def play(self) -> None:
        """Let rows enter until all run in peace."""
        while set(self.running) != set(self.alive):
            eligible = self.recovery.eligible
            entering = [k for k in self.alive if k not in self.running and (eligible is None or k in eligible)]
            assert entering, "the policy lets nobody in, and nobody is on trial"
            self.running += entering
            if self.bad & set(self.running):
                assert not self.crash().gave_up
                continue
            for key in entering:
                self.recovery.progress(key)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 16, 33, 64])
def test_one_poison_request_is_found_and_nobody_else_is_failed(rows: int) -> None:
    """Wherever it stands in a batch of any size, it is poison after two crashes alone, and has not been resumed too
    often."""
    for bad in range(rows):
        engine = Engine(rows, {bad})
        engine.crash()
        engine.play()
        assert engine.poison == [bad]
        assert engine.exhausted == []
        assert engine.crashes <= MAX_RESUMES + 1


def test_a_kill_from_outside_fails_nobody() -> None:
    """With no bad request everybody resumes, a half at a time, and the policy then lets everybody in again."""
    engine = Engine(16, set())
    for _ in range(20):
        engine.crash()
        assert engine.recovery.eligible == frozenset(range(8))
        engine.play()
        assert engine.recovery.eligible is None
    assert engine.poison == engine.exhausted == []


def test_new_arrivals_wait_while_suspects_are_tried() -> None:
    """Only the half on trial may enter."""
    recovery = Recovery(8)
    recovery.crashed([1, 2, 3, 4], "killed", 0.0)
    assert recovery.eligible == frozenset({1, 2})
    recovery.progress(1)
    assert recovery.eligible == frozenset({2})
    recovery.ended(2)
    assert recovery.eligible == frozenset({3, 4})


def test_a_token_clears_suspicion() -> None:
    """Crashes alone that have a token between them do not add up to poison, nor resumes to exhaustion."""
    recovery = Recovery(8)
    for crash in range(3 * MAX_RESUMES):
        verdict = recovery.crashed([1], "killed", float(crash))
        assert verdict == Verdict(backoff_seconds=verdict.backoff_seconds)
        recovery.progress(1)


def test_a_crash_halves_the_rows_and_good_steps_double_them() -> None:
    """What may have been the memory is tried with fewer rows, and then with more again."""
    recovery = Recovery(16)
    recovery.crashed(list(range(16)), "killed by SIGKILL", 0.0)
    assert recovery.row_limit == 8
    for _ in range(RAISE_AFTER_STEPS):
        recovery.stepped()
    assert recovery.row_limit == 16


def test_restarts_back_off_up_to_a_bound() -> None:
    """Each crash without progress doubles the wait, and progress starts it anew."""
    recovery = Recovery(4)
    waits = [recovery.crashed([], "exit code 1", float(n)).backoff_seconds for n in range(MAX_IDLE_CRASHES)]
    assert waits == sorted(waits)
    assert waits[1] == 2 * waits[0]
    assert max(waits) <= MAX_BACKOFF_SECONDS
    recovery.progress(1)
    assert recovery.crashed([], "exit code 1", 99.0).backoff_seconds == waits[0]


def test_an_engine_that_dies_with_nobody_running_is_given_up() -> None:
    """Then it is no request that kills it."""
    recovery = Recovery(4)
    verdicts = [recovery.crashed([], "exit code 1", float(n)) for n in range(MAX_IDLE_CRASHES + 1)]
    assert [bool(verdict.gave_up) for verdict in verdicts] == [False] * MAX_IDLE_CRASHES + [True]
    assert "exit code 1" in verdicts[-1].gave_up


def test_many_crashes_without_any_progress_give_the_model_up() -> None:
    """Also when requests run and each is found guilty in turn."""
    recovery = Recovery(4)
    gave_up = [recovery.crashed([key], "killed", 0.0).gave_up for key in range(MAX_CRASHES_WITHOUT_PROGRESS + 1)]
    assert [bool(reason) for reason in gave_up] == [False] * MAX_CRASHES_WITHOUT_PROGRESS + [True]


def test_an_engine_that_lived_long_starts_the_count_anew() -> None:
    """A machine where somebody kills an idle engine once a day keeps its model."""
    recovery = Recovery(4)
    for day in range(10 * MAX_IDLE_CRASHES):
        recovery.started(day * 1000.0)
        assert not recovery.crashed([], "killed by SIGKILL", day * 1000.0 + STABLE_SECONDS).gave_up


def test_alone_without_being_on_trial_is_no_proof() -> None:
    """One that is killed alone amid its tokens, and again before the next, is a suspect and not poison."""
    recovery = Recovery(16)
    recovery.progress(1)
    for now_seconds in (1.0, 2.0):
        assert recovery.crashed([1], "killed", now_seconds).poison == ()
        assert recovery.eligible == frozenset({1})
    assert recovery.crashed([1], "killed", 3.0).poison == (1,)
