"""The table of a request's life."""

from __future__ import annotations

import pytest

from mlx_grpc.schedule.states import ROW_STATES, TRANSITIONS, IllegalTrigger, Life, State, Trigger

LEGAL = [(state, event) for state, moves in TRANSITIONS.items() for event in moves]
ILLEGAL = [(state, event) for state in State for event in Trigger if (state, event) not in LEGAL]


def life_in(state: State) -> Life:
    life = Life()
    life.state = state
    return life


def test_a_plain_life() -> None:
    """Submitted, admitted, first token, finished."""
    life = Life()
    states = [life.move(event) for event in (Trigger.SUBMIT, Trigger.ADMIT, Trigger.FIRST_TOKEN, Trigger.FINISH)]
    assert states == [State.WAITING, State.PREFILL, State.DECODE, State.DONE]


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_an_illegal_event_names_state_and_event(state: State, event: Trigger) -> None:
    """What the table does not hold raises, and the state stays."""
    life = life_in(state)
    with pytest.raises(IllegalTrigger, match=f"{event.name} is not allowed in state {state.name}"):
        life.move(event)
    assert life.state is state


def test_done_is_the_end() -> None:
    """Nothing happens to a request after its end, so it ends once."""
    assert not TRANSITIONS[State.DONE]


def test_every_state_leads_to_done() -> None:
    """From each state some events lead to the end."""
    reach = {State.DONE}
    for _ in State:
        reach |= {state for state, moves in TRANSITIONS.items() if reach & set(moves.values())}
    assert reach == set(State)


@pytest.mark.parametrize("state", sorted(ROW_STATES, key=str))
def test_a_crash_ends_no_request_that_somebody_waits_for(state: State) -> None:
    """Prefill and decode wait again; one whose cancel was sent is done."""
    expected = State.DONE if state is State.LEAVING else State.WAITING
    assert life_in(state).move(Trigger.CRASH) is expected


@pytest.mark.parametrize("state", sorted(ROW_STATES, key=str))
def test_the_engine_may_end_any_row(state: State) -> None:
    """A natural end and a removal are legal wherever there is a row."""
    assert life_in(state).move(Trigger.FINISH) is State.DONE
    assert life_in(state).move(Trigger.REMOVED) is State.DONE


def test_a_token_on_its_way_meets_a_cancel() -> None:
    """The first token of a leaving row changes nothing: it still holds its row."""
    life = life_in(State.LEAVING)
    life.move(Trigger.FIRST_TOKEN)
    assert life.state is State.LEAVING
    assert life.holds_row
