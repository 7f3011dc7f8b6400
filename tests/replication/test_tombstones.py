"""A node that was away answers for nothing old before it knows what ended meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from sessile.backend import PullStatus
from sessile.errors import WireError
from sessile.record import ENDED
from sessile.replication.events import Woken
from sessile.replication.messages import TombstonesAsked, TombstonesTold, Whole
from tests.replication.cluster import Cluster


def away(cluster: Cluster, name: str, ms: int) -> None:
    """The process is stopped for so long, and then goes on."""
    cluster.servers[name].is_stopped = True
    cluster.run(ms)
    cluster.servers[name].is_stopped = False


def pair(names: str = "ab", **config: Any) -> tuple[Cluster, bytes]:
    cluster = Cluster(names, **config)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    return cluster, key


def test_a_short_pause_changes_nothing() -> None:
    """Shorter than what others wait for: nobody missed it, and it is as sure as before."""
    cluster, key = pair()
    away(cluster, "b", 190)
    cluster.run(2)
    assert cluster.servers["b"].node.is_sure(key, cluster.now_ms) and cluster.servers["b"].node.counts["absences"] == 0


def test_after_a_long_one_nothing_old_is_answered_for() -> None:
    """The session ended meanwhile: from its first moment the node is not sure, and then it knows."""
    cluster, key = pair("abc", strategy="all-to-all")
    cluster.servers["b"].is_stopped = True
    cluster.run(1_500)
    cluster.end("a", key)
    cluster.run(100)
    cluster.servers["b"].is_stopped = False
    node = cluster.servers["b"].node
    ticket = cluster.pull("b", key)
    assert not node.is_sure(key, cluster.now_ms) and not node.is_trusting
    assert cluster.answer("b", ticket) is None
    cluster.run(2_500)
    answer = cluster.answer("b", ticket)
    assert answer is not None
    assert cluster.servers["b"].table.state(key) == ENDED
    assert node.is_sure(key, cluster.now_ms) and node.is_trusting


def test_who_is_gone_is_not_waited_for() -> None:
    """Everybody else died while it was away: after a while it goes on with what it has."""
    cluster, key = pair()
    cluster.servers["b"].is_stopped = True
    cluster.run(1_500)
    cluster.kill("a")
    cluster.servers["b"].is_stopped = False
    cluster.run(2)
    assert not cluster.servers["b"].node.is_sure(key, cluster.now_ms)
    cluster.run(2_500)
    assert cluster.servers["b"].node.is_sure(key, cluster.now_ms)
    assert cluster.asked("b", key).status is not PullStatus.UNREACHABLE


def test_only_the_last_absence_is_waited_for() -> None:
    """A second one begins the waiting anew."""
    cluster, key = pair()
    node = cluster.servers["b"].node
    cluster.mangle = lambda source, target, message: isinstance(message, TombstonesTold)
    away(cluster, "b", 1_300)
    cluster.run(1_000)
    away(cluster, "b", 1_300)
    cluster.run(1_000)
    assert node.counts["absences"] == 2 and not node.is_sure(key, cluster.now_ms)
    cluster.run(2_500)
    assert node.is_sure(key, cluster.now_ms)


def test_many_ends_are_told_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """All arrive; only the last piece says that it is the last."""
    monkeypatch.setattr("sessile.replication.telling.BATCH_BYTES", 100)
    cluster, _ = pair()
    keys = [cluster.first_key("a", start=100 * n) for n in range(1, 9)]
    cluster.cut("a", "b")
    cluster.run(1_500)
    for key in keys:
        cluster.create("a", key, x=1)
        cluster.end("a", key)
    cluster.seen.clear()
    cluster.heal()
    cluster.run(1_000)
    told = list(cluster.messages(TombstonesTold, "a", "b"))
    assert sum(message.is_last for message in told) == len(list(cluster.messages(TombstonesAsked, "b", "a")))
    assert len(told) > 2
    assert all(cluster.servers["b"].table.state(key) == ENDED for key in keys)


def test_an_end_that_is_none_breaks_the_protocol() -> None:
    """What lives is not told as ended. What is no record is left out, and the rest is taken."""
    cluster, key = pair()
    node = cluster.servers["b"].node
    held = cluster.held("a", key)
    assert held is not None
    with pytest.raises(WireError):
        node._tombstones.take_told(node.peers["a"], TombstonesTold(0, ((key, held.pack()),), is_last=True))
    ended = held.end(ENDED, cluster.now_ms).pack()
    items = ((key, b"nonsense"), (b"short", ended), (key, ended))
    node._tombstones.take_told(node.peers["a"], TombstonesTold(cluster.now_ms, items, is_last=True))
    after = cluster.held("b", key)
    assert after is not None and after.state == ENDED
    assert node.counts["refused"] == 2


def test_ends_need_no_room() -> None:
    """A full table takes every end, also of sessions that it does not hold."""
    cluster, key = pair()
    node = cluster.servers["b"].node
    held = cluster.held("a", key)
    assert held is not None
    cluster.servers["b"].table._sessions_max = 0
    ended = held.end(ENDED, cluster.now_ms).pack()
    other = bytes(16)
    message = TombstonesTold(cluster.now_ms, ((other, ended), (key, ended)), is_last=False)
    node._tombstones.take_told(node.peers["a"], message)
    assert cluster.servers["b"].table.state(key) == ENDED
    assert cluster.servers["b"].table.state(other) == ENDED


def test_an_answer_from_before_the_absence_does_not_end_it() -> None:
    """It was sent before the process stopped, and tells nothing of what ended meanwhile."""
    cluster, _key = pair("ab", strategy="all-to-all")
    node = cluster.servers["b"].node
    number = node._tombstones._absences
    away(cluster, "b", 600)
    cluster.handle("b", Woken())
    assert not node.is_trusting
    node._tombstones.take_told(node.peers["a"], TombstonesTold(cluster.now_ms, (), is_last=True, number=number))
    assert not node.is_trusting
    cluster.run(5)
    assert node.is_trusting


def test_an_answer_repeats_the_number_of_its_question() -> None:
    """Also one in pieces, and one to a question that a greeting asked."""
    cluster, _ = pair()
    assert {(message.number, message.ago_ms) for message in cluster.messages(TombstonesAsked)} == {(0, -1)}
    cluster.seen.clear()
    away(cluster, "b", 600)
    cluster.run(5)
    assert [message.number for message in cluster.messages(TombstonesAsked, "b", "a")] == [1]
    assert [message.number for message in cluster.messages(TombstonesTold, "a", "b")] == [1]


def ended_long_ago_and_now(cluster: Cluster, count: int) -> tuple[list[bytes], list[bytes]]:
    """Sessions that ended a minute ago, all over the cluster, and some that end while `b` is stopped."""
    keys = [cluster.first_key("a", start=100 * number) for number in range(1, 2 * count + 1)]
    for key in keys:
        cluster.create("a", key, x=1)
    cluster.run(20)
    for key in keys[:count]:
        cluster.end("a", key)
    cluster.run(60_000)
    cluster.seen.clear()
    cluster.mangle = lambda source, target, message: isinstance(message, Whole)  # nothing else tells of the ends
    cluster.servers["b"].is_stopped = True
    cluster.run(300)
    for key in keys[count:]:
        cluster.end("a", key)
    cluster.run(400)
    cluster.servers["b"].is_stopped = False
    cluster.run(5)
    return keys[:count], keys[count:]


def test_a_short_absence_costs_as_much_as_ended_meanwhile() -> None:
    """Not the ends of the last ten minutes: a process that is short of processor time would be short of it for ever."""
    cluster, _ = pair("ab", strategy="all-to-all")
    _, recent = ended_long_ago_and_now(cluster, 5)
    told = [key for message in cluster.messages(TombstonesTold, "a", "b") for key, _ in message.items]
    assert sorted(told) == sorted(recent)
    assert all(cluster.servers["b"].table.state(key) == ENDED for key in recent)


def test_what_is_not_listed_by_time_any_more_is_told_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """More ended since than the list has room for."""
    monkeypatch.setattr("sessile.replication.telling.RECENT_MAX", 3)
    cluster, _ = pair("ab", strategy="all-to-all")
    old, recent = ended_long_ago_and_now(cluster, 5)
    told = [key for message in cluster.messages(TombstonesTold, "a", "b") for key, _ in message.items]
    assert sorted(told) == sorted(old + recent)


def test_what_a_second_absence_asks_reaches_back_to_the_first() -> None:
    """The first question was not answered: what ended in the first absence is still to be told."""
    cluster, _key = pair("ab", strategy="all-to-all")
    cluster.seen.clear()
    cluster.mangle = lambda source, target, message: isinstance(message, TombstonesTold)
    away(cluster, "b", 600)
    cluster.run(5)
    away(cluster, "b", 700)
    cluster.run(5)
    ago_ms = [message.ago_ms for message in cluster.messages(TombstonesAsked, "b", "a")]
    assert len(ago_ms) == 2 and 600 <= ago_ms[0] < 900 and 1_300 <= ago_ms[1] < 1_600
