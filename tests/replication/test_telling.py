"""What is told of ended sessions: how far it reaches back, in which pieces, and at what pace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessile.ends import END_BYTES, Ends
from sessile.record import ENDED, Record
from sessile.replication import telling as telling_module
from sessile.replication.messages import TombstonesAsked, TombstonesTold
from tests.replication.cluster import Cluster, key_number

if TYPE_CHECKING:
    import pytest

    from sessile.replication.telling import Telling
    from sessile.token import SessionKey


def telling_of(cluster: Cluster, name: str = "a") -> Telling:
    return cluster.servers[name].node._tombstones.telling


def with_sessions(count: int, **config: Any) -> tuple[Cluster, list[SessionKey]]:
    """Two servers that hold so many sessions."""
    cluster = Cluster("ab", strategy="all-to-all", **config)
    keys = [cluster.first_key("a", start=100 * number) for number in range(count)]
    for key in keys:
        cluster.create("a", key, x=1)
    cluster.run(20)
    return cluster, keys


def remember(cluster: Cluster, name: str, count: int) -> list[SessionKey]:
    """Enter so many ends without tombstones at a server."""
    keys = [key_number(10_000 + number) for number in range(count)]
    for key in keys:
        cluster.servers[name].table.note_ended(key, cluster.now_ms + 30_000_000)
    return keys


def test_what_ended_lately_is_told_also_where_its_tombstone_has_gone() -> None:
    """Too many ended at once, or the server started over: the end that it remembers is told, and nothing else."""
    cluster, keys = with_sessions(3)
    for key in keys:
        cluster.end("a", key)
    cluster.run(20_000)
    table = cluster.servers["a"].table
    table.drop(keys[0])
    table.drop(keys[1])
    table.ends = Ends(bytes_max=10_000)
    table.note_ended(keys[0], cluster.now_ms + 1_000_000)
    telling = telling_of(cluster)
    told = list(telling._packed(telling._learned_since(0)))
    assert sorted(key for key, _ in told) == sorted([keys[0], keys[2]])
    assert all(Record.unpack(data).state == ENDED for _, data in told)


def test_how_far_back_an_absence_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """To when an end may have been on its way, to the millisecond; where that is not listed, everything is told."""
    monkeypatch.setattr("sessile.replication.telling.RECENT_MAX", 2)
    cluster, keys = with_sessions(3, ack_timeout_ms=20_000)
    context = cluster.servers["a"].node._context
    overlap_ms = 2 * context.config.ack_timeout_ms
    assert context.config.overlap_ms == overlap_ms
    ended_ms = []
    for key in keys:
        cluster.run(10)
        cluster.end("a", key)
        ended_ms.append(cluster.now_ms)
    telling, peer = telling_of(cluster), context.peers["b"]
    now_ms = context.now_ms = cluster.now_ms + 100_000

    def told(since_ms: int) -> set[bytes]:
        return set(telling._asked_for(peer, now_ms - overlap_ms - since_ms)[1])

    assert told(ended_ms[2] + 1) == set()
    assert told(ended_ms[2]) == {keys[2]}
    assert told(ended_ms[1]) == told(ended_ms[0] + 1) == set(keys[1:])
    assert told(ended_ms[0]) == set(keys), "the first one is not listed any more"
    context.now_ms = ended_ms[2] + overlap_ms
    for ago_ms, is_all, ends in ((0, False, keys[2:]), (-1, True, keys)):  # below 0 is whoever asks for the first time
        is_whole, told_keys = telling._asked_for(peer, ago_ms)
        assert (is_whole, set(told_keys)) == (is_all, set(ends))


def test_who_was_out_of_reach_is_told_what_ended_since_whatever_its_clock_says() -> None:
    """A machine's clock may stand still while the machine is stopped. Over a link that lasts, only what is asked for counts."""
    cluster, keys = with_sessions(2)
    cluster.run(40_000)
    telling, context = telling_of(cluster), cluster.servers["a"].node._context
    cluster.mangle = lambda source, target, message: isinstance(message, TombstonesAsked)
    cluster.cut("a", "b")
    cluster.run(2_000)
    cluster.end("a", keys[0])
    cluster.run(60_000)
    cluster.heal()
    cluster.run(2_000)
    peer = context.peers["b"]
    assert peer.told_ms is None and telling._asked_for(peer, 0) == (False, [keys[0]])
    cluster.close("a", "b")  # before anything was told
    cluster.run(2_000)
    peer = context.peers["b"]
    assert peer.told_ms is None and telling._asked_for(peer, 0) == (False, [keys[0]])
    cluster.run(40_000)
    telling.take_asked(peer, TombstonesAsked(0, 0))
    assert peer.told_ms is not None and telling._asked_for(peer, 0) == (False, [])
    cluster.run(context.config.timings.dead_after_ms + 5)
    cluster.close("a", "b")  # long after that
    cluster.run(2_000)
    assert context.peers["b"].told_ms is None and telling._asked_for(context.peers["b"], 0) == (False, [])


def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling_module, "BATCH_MARKS", 10)
    monkeypatch.setattr(telling_module, "PIECE_BYTES", 1)


def told_between(cluster: Cluster, source: str, target: str) -> list[TombstonesTold]:
    return list(cluster.messages(TombstonesTold, source, target))


def test_a_long_answer_leaves_in_pieces_and_the_last_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in so long; to a link that takes nothing, none."""
    small_pieces(monkeypatch)
    cluster = Cluster("a")
    keys = remember(cluster, "a", 35)
    waiting = [0]
    cluster.servers["a"].node._context.waiting_bytes = lambda link: waiting[0]
    cluster._addresses = ("a", "b")
    cluster.start("b")
    while len(told_between(cluster, "a", "b")) < 2:
        cluster.run(1)
    waiting[0] = telling_module.CROWDED_BYTES + 1
    cluster.run(5)
    told = len(told_between(cluster, "a", "b"))
    cluster.run(1_000)
    assert len(told_between(cluster, "a", "b")) == told
    waiting[0] -= 1
    began_ms = cluster.now_ms
    while not told_between(cluster, "a", "b")[-1].is_last:
        cluster.run(1)
    messages = told_between(cluster, "a", "b")
    assert [message.is_last for message in messages] == [False] * (len(messages) - 1) + [True] and len(messages) == 4
    assert cluster.now_ms - began_ms > telling_module.PAUSE_MS
    assert all(key in cluster.servers["b"].table.ends for key in keys)
    assert not telling_of(cluster)._answers


def test_pieces_to_several_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """All together get no more in a time than one would."""
    small_pieces(monkeypatch)
    cluster = Cluster("a")
    remember(cluster, "a", 100)
    cluster._addresses = ("a", "b", "c")
    cluster.start("b")
    cluster.start("c")
    while len(told_between(cluster, "a", "b")) < 4:
        cluster.run(1)
    assert abs(len(told_between(cluster, "a", "c")) - 4) <= 1
    before = len(told_between(cluster, "a", ""))
    cluster.run(4 * telling_module.PAUSE_MS)
    assert len(told_between(cluster, "a", "")) - before == 4
    cluster.kill("b")
    cluster.run(1_000)
    assert told_between(cluster, "a", "c")[-1].is_last and not telling_of(cluster)._answers


def test_a_question_while_another_is_answered_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several that wait, the last is answered; if one of them was for all, with all."""
    small_pieces(monkeypatch)
    cluster = Cluster("a")
    remember(cluster, "a", 35)
    cluster._addresses = ("a", "b")
    cluster.start("b")
    while not told_between(cluster, "a", "b"):
        cluster.run(1)
    peer, telling = cluster.servers["a"].node.peers["b"], telling_of(cluster)
    for number, ago_ms in ((7, 5), (8, -1), (9, 5)):
        telling.take_asked(peer, TombstonesAsked(number, ago_ms))
    assert len(telling._answers) == 1
    cluster.run(1_000)
    messages = told_between(cluster, "a", "b")
    assert [message.number for message in messages] == [0] * 4 + [9] * 4
    assert [place for place, message in enumerate(messages) if message.is_last] == [3, 7]


def test_a_tombstone_that_goes_while_it_is_told_is_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either as it was, or as an end without a tombstone: no end falls between the two lists."""
    small_pieces(monkeypatch)
    monkeypatch.setattr(telling_module, "BATCH_BYTES", 1)
    cluster, keys = with_sessions(4)
    for key in keys:
        cluster.end("a", key)
    cluster.run(20)
    server = cluster.servers["a"]
    messages = telling_of(cluster)._messages(server.node.peers["b"], TombstonesAsked(0, -1))
    first = next(messages)
    server.table.drop(first.items[0][0])
    server.table.drop(keys[3])
    rest = list(messages)
    told = {key for message in (first, *rest) for key, _ in message.items}
    assert told == set(keys)
    assert sum(len(message.marks) for message in rest) == 2 * 13 > 2 * END_BYTES
