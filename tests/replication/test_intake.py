"""What others tell a node about sessions: what it takes, what it denies, and what it tells back."""

from __future__ import annotations

from typing import Any

import pytest

from sessile.backend import Acknowledged
from sessile.delta import Delta
from sessile.errors import RecordError, SessionTooLarge, WireError
from sessile.record import ENDED, Stamp
from sessile.replication.events import FramesReceived, Woken
from sessile.replication.intake import DENIALS, LEAVING, NEED, NO_ROOM, REFUSED, delta_of, message_of
from sessile.replication.messages import Acked, Changed, Denied, Told, Touched, Whole
from sessile.replication.wire import encode
from tests.replication.cluster import Cluster, fields_of

KEY = b"\x05" * 16


def pair(**config: Any) -> tuple[Cluster, bytes]:
    cluster = Cluster("ab", strategy="all-to-all", **config)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    cluster.seen.clear()
    return cluster, key


def test_a_change_is_one_message_and_one_acknowledgement() -> None:
    """A write at one holder: `Changed` there, `Acked` back, nothing else; both hold the same."""
    cluster, key = pair()
    ticket = cluster.write("a", key, y=2)
    cluster.run(5)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    told = [message for *_, message in cluster.seen if isinstance(message, Changed | Acked | Told | Denied | Whole)]
    assert [type(message) for message in told] == [Changed, Acked]
    assert cluster.values(key) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}}


def test_who_lacks_the_base_denies_and_gets_the_whole_record() -> None:
    """A change that builds on what is missing is not applied and not counted as held until the record came."""
    cluster, key = pair()
    cluster.servers["b"].table.drop(key)
    cluster.mangle = lambda source, target, message: isinstance(message, Whole)
    ticket = cluster.write("a", key, y=2)
    cluster.run(10)
    assert [message.why for message in cluster.messages(Denied, "b", "a")] == [NEED]
    assert (cluster.answer("a", ticket), set(cluster.values(key))) == (None, {"a"})


def test_the_whole_record_counts_as_the_change() -> None:
    """Once it came, the writer is answered."""
    cluster, key = pair()
    cluster.servers["b"].table.drop(key)
    ticket = cluster.write("a", key, y=2)
    cluster.run(10)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert cluster.values(key)["b"] == {"x": 1, "y": 2}


def test_a_writer_that_lacks_something_is_told_before_it_is_acknowledged() -> None:
    """Two writes at once: each side has both before either is answered."""
    cluster, key = pair()
    tickets = cluster.write("a", key, p=1), cluster.write("b", key, q=2)
    for _ in range(20):
        cluster.run(1)
        for name, ticket in zip("ab", tickets, strict=True):
            if cluster.answer(name, ticket) is not None:
                assert fields_of(cluster.held(name, key)) == {"x": 1, "p": 1, "q": 2}
    assert all(cluster.answer(name, ticket) for name, ticket in zip("ab", tickets, strict=True))


def test_a_write_to_an_ended_session_is_answered_with_its_end() -> None:
    """The writer learns of it with the acknowledgement."""
    cluster, key = pair()
    held = cluster.held("b", key)
    assert held is not None
    cluster.servers["b"].table.put(key, held.end(ENDED, cluster.now_ms))
    cluster.write("a", key, y=2)
    cluster.run(5)
    after = cluster.held("a", key)
    assert after is not None and after.state == ENDED


def test_no_room_is_said_and_no_acknowledgement() -> None:
    """A holder that is full denies a new session; the writer is not answered as if it were held."""
    cluster = Cluster("ab", strategy="all-to-all", ack_timeout_ms=100)
    cluster.servers["b"].table._sessions_max = 0
    key = cluster.first_key("a")
    ticket = cluster.create("a", key, x=1)
    cluster.run(150)
    assert [message.why for message in cluster.messages(Denied)][:1] == [1]
    assert cluster.answer("a", ticket) is Acknowledged.NO
    assert cluster.servers["b"].node.counts["no_room"] == 1


def test_touches_are_told_in_durations() -> None:
    """The other holder's clock, not the sender's, dates them."""
    cluster, key = pair()
    cluster.run(1_000)
    cluster.touch("a", key)
    cluster.run(100)
    assert list(cluster.messages(Touched, "a", "b"))
    held, mine = cluster.held("b", key), cluster.held("a", key)
    assert held is not None and mine is not None and abs(held.touched_ms - mine.touched_ms) <= 2


@pytest.mark.parametrize(("ago_ms", "counts_ms"), [(0, 0), (1, 1), (-5, 0)])
def test_no_use_was_in_the_future(ago_ms: int, counts_ms: int) -> None:
    """A use is dated to the millisecond, and now at the latest."""
    cluster, key = pair()
    cluster.run(1_000)
    node = cluster.servers["b"].node
    node._intake.take_touched(node.peers["a"], Touched(((key, ago_ms),)))
    held = cluster.held("b", key)
    assert held is not None and held.touched_ms == node._context.now_ms - counts_ms


def test_what_is_told_of_a_session_that_is_nobody_s_here_is_not_kept() -> None:
    """A server that is no holder and holds no copy does not begin to because it was told."""
    cluster = Cluster("abc", copies=1)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(5)
    record = cluster.held("a", key)
    assert record is not None
    node = cluster.servers["b"].node
    peer = node.peers["a"]
    node._intake.take_told(peer, Told(cluster.now_ms, ((key, record.pack()),)))
    assert cluster.held("b", key) is None
    node._intake.take_told(peer, Told(cluster.now_ms, ((key, record.end(ENDED, cluster.now_ms).pack()),)))
    assert cluster.held("b", key) is not None, "an end is everybody's"


@pytest.mark.parametrize("kind", [Whole, Told])
def test_a_record_that_is_none_is_refused_alone(kind: type[Whole | Told]) -> None:
    """It is counted, and denied where somebody waits for it; what came with it is held, and the link stays."""
    cluster, key = pair()
    held = cluster.held("b", key)
    assert held is not None
    later, _ = held.write(77, {"z": b"\x01"}, now_ms=cluster.now_ms)
    node = cluster.servers["b"].node
    items = ((KEY, b"nonsense"), (b"short", held.pack()), (key, later.pack()))
    node.handle(FramesReceived(node.peers["a"].link, (encode(kind(cluster.now_ms, items))[3:],)), cluster.now_ms)
    assert cluster.held("b", KEY) is None and cluster.held("b", key) == later
    assert node.counts["protocol_errors"] == 0 and node.counts["refused"] >= 1
    assert len(node.peers) == 1


def test_the_short_form_of_a_change_says_the_same() -> None:
    """One head of the same writer is an integer, the announced writer is zero; both ways give the delta back."""
    for base in ((Stamp(4, 7),), (Stamp(4, 9),), (Stamp(3, 7), Stamp(4, 9)), ()):
        for announced in (7, 8):
            delta = Delta(KEY, base, Stamp(5, 7), {"a": b"\x01"})
            message = message_of(delta, announced)
            assert delta_of(message, announced) == delta
            assert (message.writer == 0) is (announced == 7)
            assert isinstance(message.base, int) is (base == (Stamp(4, 7),))


def test_a_change_of_nobody_or_out_of_order_breaks_the_protocol() -> None:
    """A writer that never said its tag, and a base that is not below the stamp."""
    with pytest.raises(WireError):
        delta_of(Changed(KEY, 5, 0, 1, {}), 0)
    with pytest.raises(RecordError):
        delta_of(Changed(KEY, 5, 7, -1, {}), 0)


@pytest.mark.parametrize("is_new", [True, False])
def test_who_leaves_takes_nothing_in(*, is_new: bool) -> None:
    """A change or a new session that is on its way to a leaver is denied: what it acknowledged would go with it."""
    cluster, key = pair()
    cluster.stop("b")
    if is_new:
        key = cluster.first_key("a", start=1_000)
        cluster.create("a", key, y=2)
    else:
        cluster.write("a", key, y=2)
    cluster.run(3)
    assert [(message.key, message.why) for message in cluster.messages(Denied, "b", "a")] == [(key, LEAVING)]
    assert cluster.values(key).get("b", {}) == ({} if is_new else {"x": 1})


def test_a_change_that_finds_no_room_is_denied() -> None:
    """A holder that is full keeps the copy it has, says so, and the writer is not answered as if it were held."""
    cluster, key = pair(ack_timeout_ms=100)
    cluster.servers["b"].table._bytes_max = 0
    ticket = cluster.write("a", key, y="x" * 1_000)
    cluster.run(150)
    assert [message.why for message in cluster.messages(Denied, "b", "a")][:1] == [NO_ROOM]
    assert cluster.answer("a", ticket) is Acknowledged.NO
    assert cluster.values(key)["b"] == {"x": 1}
    assert cluster.servers["b"].node.counts["no_room"] == 1


def test_what_is_told_and_finds_no_room_changes_nothing() -> None:
    """The rest of what was told is taken, and the link lives."""
    cluster, key = pair()
    other = cluster.first_key("a", start=1_000)
    cluster.create("a", other, x=1)
    cluster.run(10)
    large, small = cluster.held("a", key), cluster.held("a", other)
    assert large is not None and small is not None
    large, _ = large.write(9, {"y": b"\xc4\xff" + bytes(255)}, now_ms=cluster.now_ms)
    node, table = cluster.servers["b"].node, cluster.servers["b"].table
    table._bytes_max = 0
    ended = small.end(ENDED, cluster.now_ms)
    node._intake.take_told(node.peers["a"], Told(cluster.now_ms, ((key, large.pack()), (other, ended.pack()))))
    assert cluster.values(key)["b"] == {"x": 1}
    assert table.has_ended(other)


def forgotten(cluster: Cluster, name: str, key: bytes) -> None:
    """This server knows that the session has ended, and the others, who hold it, do not."""
    record = cluster.held(name, key)
    assert record is not None
    table = cluster.servers[name].table
    table.put(key, record.end(ENDED, cluster.now_ms))
    table.drop(key)
    assert table.has_ended(key) and table.get(key) is None


def test_who_writes_to_a_session_that_ended_long_ago_learns_of_the_end() -> None:
    """The receiver has no record to apply the change to; the end it remembers is its answer, before the acknowledgement."""
    cluster, key = pair()
    forgotten(cluster, "b", key)
    ticket = cluster.write("a", key, x=2)
    while cluster.answer("a", ticket) is None:
        cluster.run(1)
    assert cluster.servers["a"].table.state(key) == ENDED


@pytest.mark.parametrize("is_holder", [True, False])
def test_who_tells_of_a_session_that_ended_long_ago_learns_of_the_end(*, is_holder: bool) -> None:
    """Whether or not the receiver should hold the session."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    other = cluster.servers["a"].node.placement.order(key)[1 if is_holder else 2]
    if not is_holder:
        cluster.servers[other].table.note_ended(key, cluster.now_ms + 1_000_000)
    else:
        forgotten(cluster, other, key)
    packed = cluster.servers["a"].table.get(key)
    assert packed is not None
    node = cluster.servers["a"].node
    node._context.send(node.peers[other], Told(cluster.now_ms, ((key, packed),)))
    cluster.handle("a", Woken())
    cluster.run(10)
    assert cluster.servers["a"].table.state(key) == ENDED


def test_a_newcomer_that_remembers_nothing_is_not_given_back_what_another_knows_to_have_ended() -> None:
    """It is seeded with a copy, and the comparison with who remembers the end makes both of them forget it."""
    cluster = Cluster("ab", strategy="all-to-all", repair_every_ms=1_000)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    forgotten(cluster, "b", key)
    cluster._addresses = ("a", "b", "c")
    cluster.start("c")
    cluster.run(6_000)
    assert {name: cluster.servers[name].table.state(key) for name in "abc"} == dict.fromkeys("abc", ENDED)


def test_what_denials_are_called_on_the_wire() -> None:
    """Nodes of different releases must agree."""
    assert (NEED, NO_ROOM, LEAVING, REFUSED) == (0, 1, 2, 3)
    assert [DENIALS[why] for why in range(4)] == ["need", "no_room", "leaving", "refused"]


def test_a_change_that_makes_a_session_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer hears of it, and nothing else suffers."""

    def too_large(*_: object) -> None:
        raise SessionTooLarge("no server would take it")

    cluster, key = pair()
    monkeypatch.setattr("sessile.replication.replica.Replica.apply", too_large)
    cluster.write("a", key, y=1)
    cluster.run(10)
    assert [(message.key, message.why) for message in cluster.messages(Denied, "b", "a")] == [(key, REFUSED)]
    counts = cluster.servers["b"].node.counts
    assert (counts["refused"], counts["protocol_errors"]) == (1, 0)
