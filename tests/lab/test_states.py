from __future__ import annotations

import pytest

from sessile.dashboard import control
from sessile.lab.states import ACTIONS, Observed, Phase, State, objection, state_of


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (Observed(is_alive=False), State.DEAD),
        (Observed(is_alive=False, is_stopped=True, phase=Phase.READY), State.DEAD),
        (Observed(is_alive=True), State.STARTING),
        (Observed(is_alive=True, missed=7), State.STARTING),
        (Observed(is_alive=True, phase=Phase.JOINING), State.STARTING),
        (Observed(is_alive=True, phase=Phase.JOINING, missed=1), State.SUSPECT),
        (Observed(is_alive=True, phase=Phase.READY), State.READY),
        (Observed(is_alive=True, phase=Phase.READY, missed=1), State.SUSPECT),
        (Observed(is_alive=True, phase=Phase.DRAINING), State.DRAINING),
        (Observed(is_alive=True, phase=Phase.DRAINING, missed=2), State.SUSPECT),
        (Observed(is_alive=True, is_stopped=True), State.PAUSED),
        (Observed(is_alive=True, is_stopped=True, phase=Phase.DRAINING, missed=3), State.PAUSED),
    ],
)
def test_a_state_is_what_was_observed(seen: Observed, state: State) -> None:
    """Dead before paused before starting before suspect before what the server says of itself."""
    assert state_of(seen) is state


def test_the_states_are_those_of_the_contract() -> None:
    """Outside checks know exactly these words."""
    assert [*State] == ["starting", "ready", "suspect", "paused", "draining", "dead"]


def test_every_action_of_the_control_api_has_its_states() -> None:
    """No action is offered whose sense nobody has thought about, and none is thought about that is not offered."""
    assert tuple(ACTIONS) == control.ACTIONS
    assert all(ACTIONS.values())


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", State)
def test_an_action_is_objected_to_exactly_where_it_makes_no_sense(action: str, state: State) -> None:
    """The objection is a sentence that names the server and its state."""
    reason = objection("s1", action, state)
    assert (reason is None) == (state in ACTIONS[action])
    if reason is not None:
        assert reason.startswith(f"s1 is {state}")


def test_a_dead_server_can_only_be_restarted() -> None:
    """There is no process that could be paused, drained or killed."""
    assert [action for action, states in ACTIONS.items() if State.DEAD in states] == ["restart"]
