"""The scheduler's rules, one by one."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from mlx_grpc.errors import DeadlineUnreachable, NeverFits, QueueFull
from mlx_grpc.request import Priority, Queued
from mlx_grpc.schedule.budget import KvBudget
from mlx_grpc.schedule.scheduler import Entry, Limits, Plan, Scheduler, UnknownRequest
from mlx_grpc.schedule.states import IllegalTrigger, State

HIGH, NORMAL, LOW = Priority


def entry(
    key: int,
    priority: Priority = NORMAL,
    *,
    prompt: int = 10,
    reserved: int = 20,
    arrived: float = 0.0,
    deadline: float | None = None,
    client: str = "",
) -> Entry:
    return Entry(key, priority, prompt, reserved, arrived, deadline, client=client)


def scheduler(
    *, max_waiting: int = 100, tokens: int | None = None, rows: int = 2, kv_bytes: int = 0, **limits: Any
) -> Scheduler:
    """A scheduler whose cache costs one byte a token, copies left out, so that bytes are rows x longest."""
    return Scheduler(Limits(max_waiting, tokens, rows, **limits), KvBudget(kv_bytes, 1, 1.0))


def submit_all(to: Scheduler, *entries: Entry, now: float = 0.0) -> None:
    for one in entries:
        to.submit(one, now)


def step(one: Scheduler, now: float = 0.0) -> Plan:
    """Plan and act."""
    plan = one.plan(now)
    one.apply(plan, now)
    return plan


def measured(one: Scheduler, *, residence: float = 2.0, now: float = 0.0) -> Scheduler:
    """One request of 1,000 prompt tokens a second has come and gone."""
    one.submit(entry(-1, arrived=now - residence), now - residence)
    step(one, now - residence)
    one.ledger.record_step(1.0, 1, 1000)
    one.ledger.finished(-1, now)
    return one


# Accepting.


def test_a_submit_says_its_place() -> None:
    """The place counts those before it; the wait is 0 with a row free, None where nothing was measured."""
    one = scheduler(rows=1)
    assert one.submit(entry(1), 0.0) == Queued(0, 0.0)
    assert one.submit(entry(2), 0.0) == Queued(1, None)


def test_the_wait_comes_from_measured_residence() -> None:
    """With one row of 2 s each, the second in the queue waits for two departures."""
    one = measured(scheduler(rows=1))
    submit_all(one, entry(1))
    step(one)
    submit_all(one, entry(2))
    queued = one.submit(entry(3), 0.0)
    assert queued.position == 1
    assert queued.estimated_wait_seconds == pytest.approx(4.0)


def test_a_full_queue_refuses() -> None:
    """max_waiting may wait, the next is refused and leaves nothing behind."""
    one = scheduler(max_waiting=1, rows=1)
    submit_all(one, entry(1), entry(2))
    with pytest.raises(QueueFull, match="the queue is full"):
        one.submit(entry(3), 0.0)
    assert one.ledger.waiting == 2
    assert one.ledger.state(3) is State.DONE


def test_what_can_run_at_once_needs_no_place_in_the_queue() -> None:
    """With max_waiting 0 the free rows are still filled, whether or not plan was called in between."""
    one = scheduler(max_waiting=0, rows=2)
    submit_all(one, entry(1), entry(2))
    with pytest.raises(QueueFull):
        one.submit(entry(3), 0.0)
    assert step(one).admit == (1, 2)


def test_rows_that_memory_does_not_allow_are_no_place() -> None:
    """A free row that the budget forbids does not make the queue longer."""
    one = scheduler(max_waiting=0, rows=4, kv_bytes=20)
    submit_all(one, entry(1))
    with pytest.raises(QueueFull):
        one.submit(entry(2), 0.0)


def test_a_full_queue_is_known_before_there_is_an_entry() -> None:
    """For the count, and for the tokens of those that wait; no row is free, so nobody will enter."""
    by_count = scheduler(max_waiting=1, rows=1)
    by_tokens = scheduler(max_waiting=10, tokens=10, rows=1)
    for one in (by_count, by_tokens):
        one.check_place()
        submit_all(one, entry(1))
        step(one)
        one.check_place()
        one.submit(entry(2), 0.0)
        with pytest.raises(QueueFull):
            one.check_place()


def test_memory_that_is_full_is_known_before_there_is_an_entry() -> None:
    """Rows are free, and none of them can be filled."""
    one = scheduler(max_waiting=1, rows=8, kv_bytes=40)
    submit_all(one, entry(1), entry(2))
    step(one)
    one.check_place()
    one.submit(entry(3), 0.0)
    with pytest.raises(QueueFull):
        one.check_place()


def test_what_could_enter_at_once_is_not_refused_early() -> None:
    """With no place to wait at all, as long as a row and memory are free."""
    one = scheduler(max_waiting=0, rows=2, kv_bytes=40)
    submit_all(one, entry(1))
    step(one)
    one.check_place()
    one.submit(entry(2, HIGH), 0.0)


def test_those_being_prepared_have_places() -> None:
    """Two rows and one place: three may be prepared at once."""
    one = scheduler(max_waiting=1, rows=2)
    one.check_place(preparing={"": 2})
    with pytest.raises(QueueFull):
        one.check_place(preparing={"": 3})


def test_waiting_tokens_are_limited() -> None:
    """The prompts that wait may hold so many tokens together."""
    one = scheduler(tokens=100, rows=1)
    submit_all(one, entry(1), entry(2, prompt=60))
    step(one)
    with pytest.raises(QueueFull):
        one.submit(entry(3, prompt=41), 0.0)
    one.submit(entry(4, prompt=40), 0.0)
    assert one.ledger.waiting_tokens == 100


def test_a_giant_prompt_may_wait_alone() -> None:
    """The limit on tokens never makes a request impossible that fits the model and the memory."""
    one = scheduler(tokens=100, rows=1)
    submit_all(one, entry(1))
    step(one)
    assert one.submit(entry(2, prompt=5000), 0.0).position == 0


def test_retry_is_told_from_the_measured_rate() -> None:
    """One row of 2 s each: a place is free after 2 s, and the second one refused is told 4."""
    one = measured(scheduler(max_waiting=0, rows=1))
    submit_all(one, entry(1))
    step(one)
    told = []
    for key in (2, 3):
        with pytest.raises(QueueFull) as refused:
            one.submit(entry(key), 0.0)
        told.append(refused.value.retry_after_seconds)
    assert told == pytest.approx([2.0, 4.0])


@pytest.mark.parametrize(("residence", "told"), [(1e-6, 0.05), (1e6, 60.0), (None, 1.0)])
def test_retry_has_bounds(residence: float | None, told: float) -> None:
    """Never less than 50 ms, never more than a minute, a second where nothing was measured."""
    one = scheduler(max_waiting=0, rows=1)
    if residence is not None:
        one.ledger.rates.record_finished(residence)
    submit_all(one, entry(1))
    with pytest.raises(QueueFull) as refused:
        one.submit(entry(2), 0.0)
    assert refused.value.retry_after_seconds == told


@pytest.mark.parametrize(("prompt", "field"), [(10, "stop.max_tokens"), (100, "input")])
def test_what_never_fits_is_refused_by_field(prompt: int, field: str) -> None:
    """max_tokens is at fault where the prompt alone would fit, else the input."""
    with pytest.raises(NeverFits, match="need 200 bytes") as refused:
        scheduler(kv_bytes=100).submit(entry(1, prompt=prompt, reserved=200), 0.0)
    assert refused.value.field == field
    assert refused.value.metadata == {"needed_bytes": "200", "budget_bytes": "100"}


def test_a_deadline_already_passed_is_unreachable() -> None:
    """It needs no measurement to know."""
    with pytest.raises(DeadlineUnreachable, match="had passed"):
        scheduler().submit(entry(1, deadline=1.0), 1.0)


def test_nothing_measured_accepts_any_deadline() -> None:
    """Without rates nobody is refused for a deadline."""
    assert scheduler().submit(entry(1, prompt=10**6, deadline=0.001), 0.0).position == 0


def test_a_prefill_that_takes_too_long_is_unreachable() -> None:
    """At 1,000 tokens/s, 10,000 tokens cannot be done in 4 s, not even at twice the rate; in 6 s perhaps."""
    one = measured(scheduler())
    with pytest.raises(DeadlineUnreachable, match=r"about 10\.00 s and the deadline leaves 4\.00 s"):
        one.submit(entry(1, prompt=10_000, deadline=4.0), 0.0)
    one.submit(entry(2, prompt=10_000, deadline=6.0), 0.0)


def test_max_tokens_never_counts_in_the_deadline() -> None:
    """Only the first token must come before it."""
    measured(scheduler()).submit(entry(1, prompt=1, reserved=10**9, deadline=0.1), 0.0)


def test_a_queue_that_takes_too_long_is_unreachable() -> None:
    """Ten departures of 2 s each, one after another, are too late for a deadline in 5 s."""
    one = measured(scheduler(rows=1))
    submit_all(one, *(entry(key) for key in range(10)))
    with pytest.raises(DeadlineUnreachable):
        one.submit(entry(10, deadline=5.0), 0.0)


def test_better_ones_of_others_delay_only_until_one_has_aged() -> None:
    """A thousand HIGH of another client are a wait of one ageing period, which is how long they are served first."""
    one = measured(scheduler(max_waiting=2000, rows=2, ageing_seconds=10.0))
    submit_all(one, *(entry(key, HIGH, client="ann") for key in range(1000)))
    step(one)
    one.ledger.first_token(0, 0.0)
    queued = one.submit(entry(-2, NORMAL, deadline=8.0, client="ben"), 0.0)
    assert queued.estimated_wait_seconds == pytest.approx(11.0)
    assert queued.position == 998
    with pytest.raises(DeadlineUnreachable):
        one.submit(entry(-3, NORMAL, deadline=8.0, client="ann"), 0.0)


def test_the_wait_knows_a_clients_own_rows() -> None:
    """With one row for each client, the third of one waits for two of its own, however many rows are free."""
    one = measured(scheduler(rows=8, max_client_rows=1), residence=2.0)
    waits = [one.submit(entry(key, client="ann"), 0.0).estimated_wait_seconds for key in range(3)]
    assert waits == [0.0, pytest.approx(2.0), pytest.approx(4.0)]
    assert one.submit(entry(10, client="ben"), 0.0).estimated_wait_seconds == 0.0


def test_a_client_with_all_its_rows_is_passed_over() -> None:
    """Its next request enters when one of its rows ends. Others that enter before do not count as overtaking it."""
    one = scheduler(rows=4, max_client_rows=2, max_overtakes=0)
    submit_all(one, *(entry(key, client="ann") for key in range(5)), *(entry(key, client="ben") for key in (10, 11)))
    assert step(one).admit == (0, 10, 1, 11)
    one.ledger.finished(10, 0.0)
    assert step(one).admit == ()
    one.submit(entry(12, client="ben"), 0.0)
    assert step(one).admit == (12,)
    assert one.ledger.overtaken == {}
    one.ledger.finished(0, 0.0)
    assert step(one).admit == (2,)


def test_old_rates_refuse_nobody() -> None:
    """A minute after the engine's last word its rates keep no call out: the guard does not latch."""
    one = measured(scheduler())
    one.submit(entry(1, prompt=10_000, deadline=65.0), 61.0)


def test_a_key_is_used_once_at_a_time() -> None:
    """Submitting a key that is alive is a mistake; after its end it may be used again."""
    one = scheduler()
    submit_all(one, entry(1))
    with pytest.raises(ValueError, match="alive already"):
        one.submit(entry(1), 0.0)
    one.ledger.cancel_waiting(1)
    submit_all(one, entry(1))


# Planning.


def test_rows_are_limited() -> None:
    """No more than max_rows enter, in the order of the queue."""
    one = scheduler(rows=2)
    submit_all(one, entry(1, LOW), entry(2), entry(3, HIGH))
    assert step(one).admit == (3, 2)
    assert step(one).admit == ()
    assert (one.ledger.running, one.ledger.waiting) == (2, 1)


def test_planning_changes_nothing() -> None:
    """Asked twice, plan answers the same."""
    one = scheduler()
    submit_all(one, entry(1, deadline=1.0), entry(2, deadline=5.0), entry(3))
    assert one.plan(2.0) == one.plan(2.0) == Plan((2, 3), (1,), 5.0)


def test_memory_is_limited() -> None:
    """Rows x longest stays within the budget."""
    one = scheduler(rows=10, kv_bytes=100)
    submit_all(one, *(entry(key, reserved=30) for key in range(5)))
    assert step(one).admit == (0, 1, 2)
    assert one.kv_reserved_bytes == 90


def test_a_leaving_row_still_holds_its_place() -> None:
    """Row and bytes are free when the engine says so, not when the cancel is sent."""
    one = scheduler(rows=1)
    submit_all(one, entry(1), entry(2))
    step(one)
    one.ledger.leaving(1, 0.0)
    assert step(one).admit == ()
    one.ledger.removed(1, 0.0)
    assert step(one).admit == (2,)


def test_small_ones_may_overtake_one_that_does_not_fit_but_not_for_ever() -> None:
    """After max_overtakes nobody enters until the big one does."""
    one = scheduler(rows=3, kv_bytes=100, max_overtakes=2)
    submit_all(one, entry(0, reserved=10), entry(1, reserved=100), *(entry(key) for key in range(2, 9)))
    assert step(one).admit == (0, 2, 3)
    for key in (0, 2):
        one.ledger.finished(key, 0.0)
        assert step(one).admit == (), "two have overtaken: now it is held free"
    one.ledger.finished(3, 0.0)
    assert step(one).admit == (1,)


def test_overtaking_ends_with_time_too() -> None:
    """However few have overtaken, after max_overtake_seconds nobody does any more."""
    one = scheduler(rows=3, kv_bytes=100, max_overtake_seconds=5.0)
    submit_all(one, entry(0, reserved=10), entry(1, reserved=100), entry(2))
    assert step(one, 1.0).admit == (0, 2)
    submit_all(one, entry(3), now=1.0)
    assert one.plan(5.9).admit == (3,)
    assert one.plan(6.0).admit == ()


def test_a_shrunk_budget_lets_the_accepted_run_alone() -> None:
    """Whoever was accepted does not wait for ever: with no other row it enters, whatever the budget is."""
    one = scheduler(kv_bytes=100)
    submit_all(one, entry(1, reserved=80), entry(2, reserved=10))
    one.budget = one.budget.with_total(40)
    assert step(one).admit == (1,)
    one.ledger.finished(1, 0.0)
    assert step(one).admit == (2,)


def test_the_row_limit_can_be_lowered_and_raised() -> None:
    """Fewer rows after an out-of-memory, none while there is no engine, never more than max_rows."""
    one = scheduler(rows=4)
    submit_all(one, *(entry(key) for key in range(6)))
    admitted = []
    for rows in (0, 1, 3, 99):
        one.set_row_limit(rows)
        admitted.append(len(step(one).admit))
    assert admitted == [0, 1, 2, 1]


def test_low_ends_under_constant_high_load() -> None:
    """One row, a HIGH request for each second of work: LOW still enters after two ageing periods."""
    one = scheduler(rows=1, max_waiting=1000, ageing_seconds=10.0)
    submit_all(one, *(entry(key, HIGH) for key in range(5)), entry(1000, LOW))
    entered_at = None
    for second in range(100):
        one.submit(entry(5 + second, HIGH), float(second))
        (key,) = step(one, float(second)).admit
        if key == 1000:
            entered_at = second
        one.ledger.finished(key, float(second))
    assert entered_at is not None
    assert 20 <= entered_at <= 30


def test_arrivals_gather_for_a_short_time() -> None:
    """With rows running, a lone arrival waits for company until its window ends; plan says when."""
    one = scheduler(rows=4, gather_seconds=0.5)
    submit_all(one, entry(1))
    assert step(one).admit == (1,), "an idle engine waits for nobody"
    submit_all(one, entry(2, arrived=1.0), now=1.0)
    assert one.plan(1.0) == Plan((), (), 1.5)
    submit_all(one, entry(3, arrived=1.2), now=1.2)
    assert one.plan(1.5).admit == (2, 3)
    submit_all(one, entry(4, arrived=1.3), now=1.3)
    assert one.plan(1.3).admit == (2, 3, 4), "a full batch waits for nobody"


def test_arrivals_that_are_enough_gather_no_longer() -> None:
    """The window is for one that would come alone; a crowd enters at once."""
    one = scheduler(rows=16, gather_seconds=0.5, gather_rows=3)
    submit_all(one, entry(1))
    step(one)
    submit_all(one, entry(2), entry(3))
    assert one.plan(0.1).admit == ()
    submit_all(one, entry(4))
    assert one.plan(0.1).admit == (2, 3, 4)


# Ending.


def test_deadlines_pass_in_the_queue_and_in_the_batch() -> None:
    """Both are named; apply ends the waiting one and returns the other, whose row the engine must remove."""
    one = scheduler(rows=1)
    submit_all(one, entry(1, deadline=5.0), entry(2, deadline=5.0))
    assert step(one).wake_at_seconds == 5.0
    plan = one.plan(5.0)
    assert plan.expired == (1, 2)
    assert one.apply(plan, 5.0) == (1,)
    assert (one.ledger.state(1), one.ledger.state(2)) == (State.LEAVING, State.DONE)
    assert one.plan(6.0) == Plan()


def test_an_expired_request_never_enters() -> None:
    """A row is not spent on one whose deadline has come."""
    one = scheduler()
    submit_all(one, entry(1, deadline=1.0))
    assert one.plan(1.0).admit == ()


def test_a_cancel_in_the_queue_ends_at_once() -> None:
    """True where it waited, False where it has a row or is not known."""
    one = scheduler(rows=1)
    submit_all(one, entry(1), entry(2))
    step(one)
    assert [one.ledger.cancel_waiting(key) for key in (1, 2, 3)] == [False, True, False]
    assert (one.ledger.running, one.ledger.waiting) == (1, 0)


def test_a_cancel_that_meets_the_end() -> None:
    """A row that finished before the cancel arrived is finished; no second end is possible."""
    one = scheduler()
    submit_all(one, entry(1))
    step(one)
    one.ledger.leaving(1, 0.0)
    one.ledger.finished(1, 0.0)
    with pytest.raises(UnknownRequest, match="request 1 is not alive"):
        one.ledger.removed(1, 0.0)


def test_a_crash_puts_rows_back_before_all_others() -> None:
    """In order of admission, before HIGH; those that were leaving are done."""
    one = scheduler(rows=3)
    submit_all(one, entry(1, LOW), entry(2), entry(3))
    step(one)
    submit_all(one, entry(4, HIGH))
    one.ledger.first_token(1, 0.0)
    one.ledger.leaving(2, 0.0)
    assert one.ledger.crashed(1.0) == (3, 1)
    assert (one.ledger.running, one.ledger.waiting, one.ledger.state(2)) == (0, 3, State.DONE)
    assert step(one).admit == (3, 1, 4)
    one.ledger.first_token(1, 1.0)


def test_the_resumed_count_against_no_limit() -> None:
    """They do not refuse newcomers a place."""
    one = scheduler(max_waiting=1, rows=1)
    submit_all(one, entry(1))
    step(one)
    one.ledger.crashed(0.0)
    submit_all(one, entry(2))
    with pytest.raises(QueueFull):
        one.submit(entry(3), 0.0)


def test_deadlines_are_checked_again_before_resuming() -> None:
    """A crash does not forget a deadline."""
    one = scheduler()
    submit_all(one, entry(1, deadline=5.0))
    step(one)
    one.ledger.crashed(4.0)
    assert one.plan(5.0) == Plan((), (1,), None)


def test_what_a_state_forbids_is_an_error() -> None:
    """Tokens of a request that only waits, or admission twice, are mistakes that are named."""
    one = scheduler()
    submit_all(one, entry(1))
    with pytest.raises(IllegalTrigger, match="FIRST_TOKEN is not allowed in state WAITING"):
        one.ledger.first_token(1, 0.0)
    step(one)
    with pytest.raises(IllegalTrigger, match="ADMIT is not allowed in state PREFILL"):
        one.ledger.admitted([1], 0.0)


def test_waiting_is_counted_by_class() -> None:
    """For the metrics: how many of each class wait."""
    one = scheduler()
    submit_all(one, entry(1, LOW), entry(2, LOW), entry(3, HIGH))
    assert one.ledger.waiting_by_priority == {HIGH: 1, NORMAL: 0, LOW: 2}


@pytest.mark.parametrize(
    "limits",
    [
        {"max_waiting": -1},
        {"max_rows": 0},
        {"max_waiting_tokens": -1},
        {"ageing_seconds": 0.0},
        {"max_overtakes": -1},
        {"max_client_rows": 0},
        {"max_client_waiting": -1},
    ],
)
def test_limits_that_make_no_sense(limits: dict[str, Any]) -> None:
    """They are refused where they are made."""
    with pytest.raises(ValueError, match="must be"):
        Limits(**{"max_waiting": 1, "max_waiting_tokens": None, "max_rows": 1, **limits})


def test_a_call_costs_the_same_with_10000_waiting() -> None:
    """submit, refusal, plan and departure run as many lines of Python as with 100 waiting."""
    costs = []
    for size in (100, 10_000):
        one = scheduler(max_waiting=size, rows=4, kv_bytes=80)
        submit_all(one, *(entry(key, LOW, deadline=100.0 + key) for key in range(size)))
        step(one)
        costs.append(lines_of_one_round(one))
    assert costs[0] == costs[1]


def lines_of_one_round(one: Scheduler) -> int:
    """Lines run by: four submits, one refused; a departure; a plan and what follows from it; a cancel."""
    lines = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        submit_all(one, *(entry(key, HIGH, deadline=50.0) for key in (-1, -2, -3, -4)))
        with pytest.raises(QueueFull):
            one.submit(entry(-5), 0.0)
        one.ledger.finished(0, 1.0)
        step(one, 1.0)
        one.ledger.cancel_waiting(50)
    finally:
        sys.settrace(before)
    return lines
