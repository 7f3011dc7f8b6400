"""What the parts of a node share: effects in order, bounded queues, alarms in time."""

from __future__ import annotations

from random import Random

import pytest

from sessile.replication.config import NodeConfig
from sessile.replication.context import Context
from sessile.replication.events import Note, Send
from sessile.replication.membership import Membership, Timings
from sessile.replication.messages import Beat, MemberInfo, Whole
from sessile.replication.peer import Peer
from sessile.replication.placement import Placement
from sessile.replication.wire import encode
from sessile.table import Table


def make_context(**config: int) -> Context:
    table = Table(sessions_max=10, bytes_max=10_000, rotation_grace_ms=1_000, tombstone_keep_ms=1_000)
    membership = Membership(MemberInfo("a", "a", 1), Timings(), Random(1))
    placement = Placement("a", membership.placeable(), None)
    return Context(NodeConfig(name="a", host="a", **config), table, membership, placement, rng=Random(1), now_ms=1_000)  # type: ignore[arg-type]


def test_effects_are_taken_once_and_in_order() -> None:
    """What is to be done is done once."""
    context = make_context()
    peer = Peer("b", 3, 0)
    assert context.send(peer, Beat(1)) == len(encode(Beat(1)))
    context.note("something", number=1)
    assert context.take_effects() == [Send(3, encode(Beat(1))), Note("something", {"number": 1})]
    assert context.take_effects() == []


def test_what_does_not_fit_into_the_queue_is_not_sent() -> None:
    """Beyond the limit a peer gets nothing more, which is counted once, until it has acknowledged."""
    context = make_context(queue_bytes_max=100)
    peer = Peer("b", 3, 0)
    whole = Whole(0, ((b"k" * 16, b"x" * 200),))
    assert context.send_sequenced(peer, whole, lambda: None, lambda _: None)
    for _ in range(3):
        assert not context.send_sequenced(peer, whole, lambda: None, lambda _: None)
    assert (len(context.take_effects()), context.counts["overflows"], peer.is_overflowed) == (1, 1, True)


@pytest.mark.parametrize(("is_end", "room"), [(False, 100), (True, 200)])
def test_the_queue_is_full_beyond_its_limit(is_end: bool, room: int) -> None:  # noqa: FBT001
    """To the byte; ends have as much room again, and nothing else has."""
    context = make_context(queue_bytes_max=100)
    whole = Whole(0, ((b"k" * 16, b"x"),))
    for outstanding, is_sent in ((room, True), (room + 1, False)):
        peer = Peer("b", 3, 0)
        peer.outstanding_bytes = outstanding
        assert context.send_sequenced(peer, whole, lambda: None, lambda _: None, is_end=is_end) is is_sent


def test_what_no_receiver_would_take_is_left_out() -> None:
    """It is counted, and nobody waits for it."""
    context, peer = make_context(), Peer("b", 3, 0)
    huge = Whole(0, ((b"k" * 16, bytes(2**24)),))
    assert context.send(peer, huge) == 0
    assert not context.send_sequenced(peer, huge, lambda: None, lambda _: None) and not peer.outstanding
    assert context.counts["oversized"] == 2
    assert all(isinstance(effect, Note) for effect in context.take_effects())


def test_what_is_wrong_with_one_session_is_said_once_and_counted() -> None:
    """The first time with its key, the problem and the remedy."""
    context = make_context()
    for _ in range(3):
        context.refuse("refused", "p" * 500, b"k" * 16)
    (note,) = context.take_effects()
    assert isinstance(note, Note) and context.counts["refused"] == 3
    assert note.event == "record refused" and set(note.about) == {"key", "problem", "remedy"}
    assert (note.about["key"], note.about["problem"]) == ((b"k" * 16).hex(), "p" * 200)


def test_alarms_ring_when_their_time_has_come() -> None:
    """In the order of their times, equal ones in the order they were set, each once; one may set another."""
    context = make_context()
    rung: list[str] = []
    context.alarm(20, lambda: rung.append("late"))
    context.alarm(10, lambda: rung.append("first"))
    context.alarm(10, lambda: context.alarm(0, lambda: rung.append("second")))
    assert context.next_alarm_ms == 1_010
    context.ring()
    assert rung == []
    context.now_ms = 1_015
    context.ring()
    assert rung == ["first", "second"]
    assert context.next_alarm_ms == 1_020
    context.now_ms = 1_020
    context.ring()
    assert rung == ["first", "second", "late"]
    assert not context._alarms
