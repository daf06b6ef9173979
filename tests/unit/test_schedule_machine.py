"""Everything that can happen to a scheduler, in any order: what must hold after each step, and at the end."""

from __future__ import annotations

from collections import Counter
from itertools import product

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlx_grpc.errors import DeadlineUnreachable, MlxGrpcError, NeverFits, QueueFull, RateLimited
from mlx_grpc.request import Priority
from mlx_grpc.schedule.budget import KvBudget
from mlx_grpc.schedule.places import RESERVED
from mlx_grpc.schedule.scheduler import Entry, Limits, Scheduler
from mlx_grpc.schedule.states import State

MAX_WAITING, MAX_TOKENS, MAX_ROWS, BUDGET = 4, 60, 3, 200
MAX_CLIENT_WAITING, MAX_CLIENT_ROWS = 3, 2
CLIENTS = ("ann", "ben", "cleo")


class SchedulerMachine(RuleBasedStateMachine):
    """Plays the clients and the engine, and keeps its own books."""

    def __init__(self) -> None:
        super().__init__()
        limits = Limits(
            MAX_WAITING,
            MAX_TOKENS,
            MAX_ROWS,
            5.0,
            max_overtakes=2,
            max_overtake_seconds=3.0,
            max_client_waiting=MAX_CLIENT_WAITING,
            max_client_rows=MAX_CLIENT_ROWS,
        )
        self.scheduler = Scheduler(limits, KvBudget(BUDGET, 1, 1.0))
        self.now = 0.0
        self.entries: dict[int, Entry] = {}
        self.ended: dict[int, str] = {}
        self.refusals: list[MlxGrpcError] = []
        self.resumed: set[int] = set()
        self.next_key = 0

    def keys_in(self, *states: State) -> list[int]:
        return [key for key in self.entries if self.scheduler.ledger.state(key) in states]

    def end(self, key: int, how: str) -> None:
        assert key not in self.ended, f"{key} ended twice: {self.ended[key]}, {how}"
        self.ended[key] = how

    @rule(seconds=st.floats(0.0, 4.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        client=st.sampled_from(CLIENTS),
        priority=st.sampled_from(Priority),
        prompt=st.integers(1, 40),
        max_tokens=st.integers(1, 200),
        seconds_left=st.none() | st.floats(0.0, 20.0),
    )
    def submit(self, client: str, priority: Priority, prompt: int, max_tokens: int, seconds_left: float | None) -> None:
        key = self.next_key = self.next_key + 1
        deadline = None if seconds_left is None else self.now + seconds_left
        entry = Entry(key, priority, prompt, prompt + max_tokens, self.now, deadline, client=client)
        before = self.scheduler.ledger.waiting, self.scheduler.ledger.waiting_tokens
        has_place = self.may_have_a_place(client)
        try:
            queued = self.scheduler.submit(entry, self.now)
        except (QueueFull, RateLimited, NeverFits, DeadlineUnreachable) as refused:
            assert (self.scheduler.ledger.waiting, self.scheduler.ledger.waiting_tokens) == before
            assert self.scheduler.ledger.state(key) is State.DONE
            self.refusals.append(refused)
            return
        assert has_place, "it was refused before it was made, and is accepted now"
        self.entries[key] = entry
        assert 0 <= queued.position <= before[0]
        self.the_queue_is_within_its_limits()

    def may_have_a_place(self, client: str) -> bool:
        try:
            self.scheduler.check_place(client)
        except (QueueFull, RateLimited):
            return False
        return True

    def the_queue_is_within_its_limits(self) -> None:
        """What the next plan leaves waiting, the resumed left out."""
        not_counted = set(self.scheduler.plan(self.now).admit) | self.resumed
        left = [key for key in self.keys_in(State.WAITING) if key not in not_counted]
        tokens = sum(self.entries[key].prompt_tokens for key in left)
        several = len({self.entries[key].client for key in left}) > 1
        assert len(left) <= MAX_WAITING + several * -(-MAX_WAITING // RESERVED)
        assert len(left) <= 1 or tokens <= MAX_TOKENS + several * -(-MAX_TOKENS // RESERVED)
        for client in CLIENTS:
            assert sum(self.entries[key].client == client for key in left) <= MAX_CLIENT_WAITING

    @rule()
    def plan_and_act(self) -> None:
        waiting = self.keys_in(State.WAITING)
        plan = self.scheduler.plan(self.now)
        assert plan == self.scheduler.plan(self.now)
        assert set(plan.admit) <= set(waiting)
        assert not set(plan.admit) & set(plan.expired)
        assert plan.wake_at_seconds is None or plan.wake_at_seconds > self.now
        self.check_first_come_first_served(plan.admit)
        to_cancel = self.scheduler.apply(plan, self.now)
        assert set(to_cancel) == set(plan.expired) - set(waiting)
        for key in plan.expired:
            if key in waiting:
                self.end(key, "expired")
        if plan.admit and self.scheduler.ledger.running > 1:
            assert self.scheduler.kv_reserved_bytes <= self.scheduler.budget.total_bytes
        self.resumed -= set(plan.admit)

    def check_first_come_first_served(self, admit: tuple[int, ...]) -> None:
        """Each client's own, of one priority."""
        for kind in product(CLIENTS, Priority):
            mine = [k for k in admit if (self.entries[k].client, self.entries[k].priority) == kind]
            same = [k for k in mine if k not in self.resumed]
            assert same == sorted(same)

    @precondition(lambda self: self.keys_in(State.PREFILL))
    @rule(data=st.data())
    def first_token(self, data: st.DataObject) -> None:
        self.scheduler.ledger.first_token(data.draw(st.sampled_from(self.keys_in(State.PREFILL))), self.now)

    @precondition(lambda self: self.scheduler.ledger.running)
    @rule(data=st.data(), natural=st.booleans(), seconds=st.floats(0.001, 2.0))
    def a_row_ends(self, data: st.DataObject, natural: bool, seconds: float) -> None:
        key = data.draw(st.sampled_from(self.keys_in(State.PREFILL, State.DECODE, State.LEAVING)))
        self.scheduler.ledger.record_step(seconds, self.scheduler.ledger.running, self.entries[key].prompt_tokens)
        (self.scheduler.ledger.finished if natural else self.scheduler.ledger.removed)(key, self.now)
        self.end(key, "finished" if natural else "removed")

    @precondition(lambda self: self.keys_in(State.WAITING, State.PREFILL, State.DECODE, State.LEAVING))
    @rule(data=st.data())
    def a_client_leaves(self, data: st.DataObject) -> None:
        alive = self.keys_in(State.WAITING, State.PREFILL, State.DECODE, State.LEAVING)
        key = data.draw(st.sampled_from(alive))
        if self.scheduler.ledger.cancel_waiting(key):
            self.end(key, "cancelled")
        else:
            self.scheduler.ledger.leaving(key, self.now)

    @rule(data=st.data())
    def suspects_are_tried(self, data: st.DataObject) -> None:
        alive = [*self.keys_in(State.WAITING), None]
        tried = data.draw(st.sets(st.sampled_from(alive), max_size=2))
        self.scheduler.eligible = frozenset(tried - {None}) or None  # type: ignore[arg-type]

    @rule(share=st.sampled_from([0, BUDGET // 2, BUDGET]))
    def another_engine_reserves(self, share: int) -> None:
        self.scheduler.others_bytes = share

    @rule()
    def the_engine_crashes(self) -> None:
        leaving = self.keys_in(State.LEAVING)
        running = self.keys_in(State.PREFILL, State.DECODE)
        back = self.scheduler.ledger.crashed(self.now)
        assert sorted(back) == running
        self.resumed |= set(back)
        for key in leaving:
            self.end(key, "removed")
        head = self.scheduler.plan(self.now)
        alive = [key for key in back if key not in head.expired]
        if alive and self.scheduler.row_limit and self.scheduler.eligible is None and not self.scheduler.others_bytes:
            assert head.admit[0] == alive[0], "the resumed are before all others"

    @rule(rows=st.integers(0, MAX_ROWS + 1))
    def fewer_or_more_rows(self, rows: int) -> None:
        self.scheduler.set_row_limit(rows)

    @rule(total=st.integers(1, BUDGET))
    def less_or_more_memory(self, total: int) -> None:
        self.scheduler.budget = self.scheduler.budget.with_total(total)

    @invariant()
    def books_agree(self) -> None:
        waiting = self.keys_in(State.WAITING)
        rows = self.keys_in(State.PREFILL, State.DECODE, State.LEAVING)
        assert (self.scheduler.ledger.waiting, self.scheduler.ledger.running) == (len(waiting), len(rows))
        assert self.scheduler.ledger.running <= MAX_ROWS
        rows_of = Counter(self.entries[key].client for key in rows)
        assert self.scheduler.ledger.rows_of == rows_of
        assert max(rows_of.values(), default=0) <= MAX_CLIENT_ROWS
        assert self.scheduler.ledger.waiting_tokens == sum(self.entries[key].prompt_tokens for key in waiting)
        assert sum(self.scheduler.ledger.waiting_by_priority.values()) == len(waiting)
        assert set(self.entries) - set(waiting) - set(rows) == set(self.ended)

    @invariant()
    def a_full_queue_says_when_to_come_again(self) -> None:
        told = [
            refused.retry_after_seconds for refused in self.refusals if isinstance(refused, QueueFull | RateLimited)
        ]
        assert all(seconds is not None and 0.05 <= seconds <= 60.0 for seconds in told)
        self.refusals.clear()

    def teardown(self) -> None:
        """With an engine that works, all who were accepted end, each once, whatever the memory became."""
        self.scheduler.set_row_limit(1)
        self.scheduler.eligible, self.scheduler.others_bytes = None, 0
        for _ in range(2 * len(self.entries) + 1):
            self.plan_and_act()
            for key in self.keys_in(State.PREFILL, State.DECODE, State.LEAVING):
                self.scheduler.ledger.finished(key, self.now)
                self.end(key, "finished")
        assert set(self.ended) == set(self.entries)
        assert (self.scheduler.ledger.waiting, self.scheduler.ledger.running, self.scheduler.ledger.waiting_tokens) == (
            0,
            0,
            0,
        )


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
