"""The judgement on one server, step by step."""

from __future__ import annotations

import pytest

from sessile.balancer.health import Health, HealthPolicy, State, verdict_of


@pytest.mark.parametrize(
    ("status", "state"), [(200, State.UP), (404, State.UP), (503, State.DRAINING), (500, State.DOWN)]
)
def test_what_a_status_means(status: int, state: State) -> None:
    """503 drains, another 5xx is a failure, an answer is an answer."""
    assert verdict_of(status) is state


def test_two_silences_are_down_and_one_answer_is_up() -> None:
    """The defaults: fall 2, rise 1."""
    health = Health(HealthPolicy())
    assert health.check_failed("silent") is None and health.state is State.UP
    change = health.check_failed("silent")
    assert change is not None and (change.before, change.after, change.reason) == (State.UP, State.DOWN, "silent")
    assert health.check_failed("silent") is None
    back = health.check_answered(State.UP, 1.0)
    assert back is not None and health.state is State.UP


def test_silences_must_be_in_a_row() -> None:
    """An answer between two silences starts the count anew."""
    health = Health(HealthPolicy())
    for _ in range(5):
        health.check_failed("silent")
        health.check_answered(State.UP, 1.0)
    assert health.state is State.UP


def test_a_refusal_is_down_at_once() -> None:
    """Nobody listens: no second opinion is needed."""
    assert Health(HealthPolicy()).check_failed("refused", is_refusal=True) is not None


def test_old_news_do_not_bring_a_server_back() -> None:
    """A check begun before a request was refused says nothing about afterwards."""
    health = Health(HealthPolicy())
    assert health.request_refused(10.0) is not None and health.request_refused(11.0) is None
    assert health.check_answered(State.UP, 10.5) is None and health.state is State.DOWN
    assert health.check_answered(State.UP, 11.5) is not None


def test_rise() -> None:
    """With rise 3 the third success in a row brings it back; a failure between starts anew."""
    health = Health(HealthPolicy(rise=3))
    health.request_refused(0.0)
    for answers in (2, 3):
        for _ in range(answers):
            health.check_answered(State.UP, 1.0)
        if answers == 2:
            assert health.state is State.DOWN
            health.check_failed("again")
    assert health.state is State.UP


def test_draining_and_back() -> None:
    """503 drains an UP server and a DOWN one alike; 200 ends it."""
    health = Health(HealthPolicy())
    change = health.check_answered(State.DRAINING, 1.0)
    assert change is not None and health.state is State.DRAINING
    assert health.check_answered(State.UP, 2.0) is not None
