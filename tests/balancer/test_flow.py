"""Pausing and deadlines of a client connection, without sockets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from sessile.balancer.flow import FOR_DIAL, FOR_PIPELINE, FOR_UPSTREAM, Flow
from sessile.balancer.phases import BODY, IDLE, STREAM
from sessile.balancer.request_body import RequestBody
from sessile.balancer.room import Room
from sessile.balancer.settings import Limits, Timeouts
from tests.balancer.wire import with_stand_ins


class Transport:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")


def flow() -> tuple[Flow, Any, Transport]:
    settings = SimpleNamespace(
        timeouts=Timeouts(body_s=1, response_s=5, stream_s=7), limits=Limits(body_rate_bytes=100)
    )
    worker = SimpleNamespace(now=100.0, settings=settings)
    one, transport = Flow(cast("Any", worker)), Transport()
    one.transport = cast("Any", transport)
    return one, worker, transport


@with_stand_ins
def test_reading_resumes_when_no_reason_is_left() -> None:
    """Reasons add up; the transport is paused once and resumed once."""
    one, _, transport = flow()
    for reason in (FOR_UPSTREAM, FOR_PIPELINE, FOR_UPSTREAM):
        one._hold(reason)
    one._release(FOR_UPSTREAM)
    assert transport.calls == ["pause"]
    one._release(FOR_PIPELINE | FOR_DIAL)
    one._release(FOR_PIPELINE)
    assert transport.calls == ["pause", "resume"]


@with_stand_ins
def test_whose_turn_it_is() -> None:
    """A client that may send has the short deadline; one that is held waits for the server's."""
    one, worker, _ = flow()
    one.phase, one._body, one._since = BODY, RequestBody(10_000, Room(0, 0, print), 100), 100.0
    one._touch()
    assert one.deadline == 101.0
    one.hold_for_upstream()
    assert one.deadline == 105.0
    worker.now = 103.0
    one.release_for_upstream()
    assert one.deadline == 104.0 and one.is_overdue(104.0)
    assert one.is_overdue(103.5)  # nothing of the body in 3.5 s, at 100 bytes a second
    one._received = 10_000
    assert not one.is_overdue(103.5)


@with_stand_ins
def test_what_came_fast_is_no_credit_for_later() -> None:
    """After each while the count begins anew, of bytes as of time."""
    one, _, _ = flow()
    one.phase, one._body, one._since = BODY, RequestBody(10_000, Room(0, 0, print), 100), 100.0
    one.deadline = 200.0
    one._received = 5_000
    assert not one.is_overdue(101.0)
    assert not one.is_overdue(101.5)  # the first while is over
    assert not one.is_overdue(102.5)
    assert one.is_overdue(103.0)  # nothing came in the second


@with_stand_ins
def test_movement_does_not_prolong_an_idle_connection() -> None:
    """Only what makes progress is given more time."""
    one, _, _ = flow()
    one.phase, one.deadline = IDLE, 42.0
    one._touch()
    assert one.deadline == 42.0
    one.phase = STREAM
    one._touch()
    assert one.deadline == 107.0
