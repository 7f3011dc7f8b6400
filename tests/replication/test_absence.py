"""A member that missed ends is sure of no copy before it has been told all of them, however they come."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from sessile.record import ENDED, LIVE
from sessile.replication import telling as telling_module
from sessile.replication import tombstones as tombstones_module
from sessile.replication.events import Woken
from sessile.replication.messages import Answered, Changed, Digest, Offered, TombstonesAsked, TombstonesTold, Whole
from sessile.replication.tombstones import LONGEST_MS, PATIENCE_MS
from tests.replication.cluster import Cluster, key_number

if TYPE_CHECKING:
    from sessile.replication.messages import Message
    from sessile.token import SessionKey

OTHERWISE = (Answered, Digest, Offered, Whole)
"""The messages by which an end would come as well, a little later."""


def told_only(source: str, target: str, message: Message) -> bool:
    """Have ends come in no other way than in answers and as they are made."""
    return isinstance(message, OTHERWISE)


def served_ms(cluster: Cluster, name: str, key: SessionKey, ms: int) -> int:
    """For how many of the next milliseconds this server serves the session without asking."""
    server = cluster.servers[name]
    wrong = 0
    for _ in range(ms):
        cluster.run(1)
        wrong += server.table.state(key) == LIVE and server.node.is_sure(key, cluster.now_ms)
    return wrong


def marked(cluster: Cluster, name: str, numbers: range) -> list[SessionKey]:
    """Ends that a server remembers without tombstones."""
    keys = [key_number(number) for number in numbers]
    for key in keys:
        cluster.servers[name].table.note_ended(key, cluster.now_ms + 30_000_000)
    return keys


def newcomer(cluster: Cluster, name: str = "b") -> None:
    cluster._addresses = (*cluster._addresses, name)
    cluster.start(name)


def last_asked(cluster: Cluster, source: str) -> int:
    ago_ms: int = list(cluster.messages(TombstonesAsked, source))[-1].ago_ms
    return ago_ms


@pytest.mark.parametrize("names", ["ab", "abc"])
@pytest.mark.parametrize("stopped_ms", [20_000, 60_000])
def test_a_process_that_was_stopped_asks_for_all_that_ended_meanwhile(names: str, stopped_ms: int) -> None:
    """It first reads what was sent before its peers hung up, so that they seem to have been heard just now."""
    cluster = Cluster(names, strategy="all-to-all")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(2_000)
    cluster.servers["b"].is_stopped = True
    cluster.run(5_000)
    ticket = cluster.end("a", key)
    cluster.run(stopped_ms - 5_000)
    assert cluster.answer("a", ticket) is not None
    cluster.seen.clear()
    cluster.mangle = told_only
    cluster.servers["b"].is_stopped = False
    assert served_ms(cluster, "b", key, 1_000) == 0
    assert cluster.servers["b"].node.is_trusting and cluster.servers["b"].table.state(key) == ENDED
    assert stopped_ms <= min(message.ago_ms for message in cluster.messages(TombstonesAsked, "b")) < stopped_ms + 2_000


def test_a_break_of_the_link_costs_what_was_lost_and_no_more() -> None:
    """Once a member has told everything, later questions over new links are for the time since the last link alone."""
    cluster = Cluster("ab", strategy="all-to-all")
    cluster.run(60_000)
    cluster.close("a", "b")
    cluster.run(700)
    assert 0 < last_asked(cluster, "b") < 3_000
    cluster.run(10_000)
    cluster.close("a", "b")
    cluster.run(700)
    assert 0 < last_asked(cluster, "b") < 3_000


def test_a_first_answer_that_is_interrupted_is_asked_for_again() -> None:
    """As often as it takes: nothing is known of a member that never told everything."""
    cluster = Cluster("a")
    keys = marked(cluster, "a", range(20))
    cluster.run(40_000)
    cluster.mangle = lambda source, target, message: isinstance(message, TombstonesTold)
    newcomer(cluster)
    for _ in range(3):
        cluster.run(600)
        cluster.close("a", "b")
    cluster.mangle = lambda source, target, message: False
    cluster.run(2_000)
    assert all(key in cluster.servers["b"].table.ends for key in keys)
    assert {message.ago_ms for message in cluster.messages(TombstonesAsked, "b", "a")} == {-1}


def test_who_restarts_or_starts_over_is_asked_for_everything() -> None:
    """It may hold another's ends; and who starts over itself has to be told everything."""
    cluster = Cluster("ab", strategy="all-to-all")
    cluster.run(60_000)
    cluster.kill("a")
    cluster.run(100)
    cluster.start("a", incarnation=2)
    cluster.run(1_000)
    assert last_asked(cluster, "b") == -1
    cluster.close("a", "b")
    cluster.run(1_000)
    assert last_asked(cluster, "b") > 0
    cluster.servers["b"].node.start_over(("a", "b"))
    cluster.run(1_000)
    assert last_asked(cluster, "b") == -1


def slow_pieces(monkeypatch: pytest.MonkeyPatch, pause_ms: int) -> None:
    monkeypatch.setattr(telling_module, "BATCH_MARKS", 1)
    monkeypatch.setattr(telling_module, "PIECE_BYTES", 1)
    monkeypatch.setattr(telling_module, "PAUSE_MS", pause_ms)


def away_from_a_restarted(monkeypatch: pytest.MonkeyPatch, ends: int, pause_ms: int) -> tuple[Cluster, SessionKey]:
    """`b` was stopped; the only other server restarted meanwhile, and knows so many ends without tombstones."""
    cluster = Cluster("ab", strategy="all-to-all")
    keys = [key_number(number) for number in range(ends)]
    for key in keys:
        cluster.create("b", key, x=1)
    cluster.run(100)
    cluster.servers["b"].is_stopped = True
    cluster.kill("a")
    cluster.run(5_000)
    cluster.start("a", incarnation=2)
    marked(cluster, "a", range(ends))
    cluster.run(100)
    slow_pieces(monkeypatch, pause_ms)
    cluster.mangle = told_only
    cluster.seen.clear()
    cluster.servers["b"].is_stopped = False
    cluster.handle("b", Woken())
    return cluster, keys[-1]


def test_a_list_that_is_still_arriving_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than silence is. When it is there, everything that it ends has ended before any of it is served."""
    cluster, _ = away_from_a_restarted(monkeypatch, ends=8, pause_ms=PATIENCE_MS - 500)
    node, table = cluster.servers["b"].node, cluster.servers["b"].table
    cluster.run(4 * PATIENCE_MS)
    assert not node.is_trusting and node._pulse.sure_until_ms == 0
    cluster.run(8 * PATIENCE_MS)
    assert node.is_trusting
    assert {table.state(key_number(number)) for number in range(8)} == {ENDED}
    assert node.counts["ends_learned"] == 8
    assert set(node._tombstones.telling._learned_since(0)) == {key_number(number) for number in range(8)}


def test_a_list_that_stops_arriving_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without any of it the node goes on. What came of it has taken effect by then."""
    cluster, last = away_from_a_restarted(monkeypatch, ends=8, pause_ms=100)
    table = cluster.servers["b"].table

    def after_three(source: str, target: str, message: Message) -> bool:
        pieces = list(cluster.messages(TombstonesTold, "a", "b"))
        return isinstance(message, OTHERWISE) or (isinstance(message, TombstonesTold) and len(pieces) > 3)

    cluster.mangle = after_three
    while len(list(cluster.messages(TombstonesTold, "a", "b"))) < 3:
        cluster.run(1)
    node = cluster.servers["b"].node
    cluster.run(PATIENCE_MS - 200)
    assert not node.is_trusting
    ended = [number for number in range(8) if table.state(key_number(number)) == ENDED]
    assert len(ended) in {1, 2, 3}, "held against what came, though the rest did not"
    cluster.run(500)
    assert node.is_trusting and last in table


def test_no_list_is_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that sends and sends may be broken."""
    cluster, _ = away_from_a_restarted(monkeypatch, ends=80, pause_ms=1_500)
    node = cluster.servers["b"].node
    cluster.run(LONGEST_MS - 500)
    assert not node.is_trusting
    cluster.run(1_000)
    assert node.is_trusting


def test_a_newcomer_is_not_settled_in_before_the_last_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece is no answer. A logout at the newcomer is answered meanwhile: it is linked to everybody."""
    slow_pieces(monkeypatch, 1_000)
    cluster = Cluster("a", strategy="all-to-all")
    marked(cluster, "a", range(5))
    newcomer(cluster)
    node = cluster.servers["b"].node
    cluster.run(3_500)
    assert list(cluster.messages(TombstonesTold, "a", "b")) and not node._context.is_settled_in
    key = key_number(999)
    cluster.create("b", key, x=1)
    cluster.run(10)
    ticket = cluster.end("b", key)
    cluster.run(50)
    assert cluster.answer("b", ticket) is not None
    cluster.run(3_000)
    assert node._context.is_settled_in


def test_a_piece_and_then_silence_settles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for as long as for anybody who is silent."""
    slow_pieces(monkeypatch, 200)
    cluster = Cluster("a", strategy="all-to-all")
    marked(cluster, "a", range(5))
    pieces = count(1)
    cluster.mangle = lambda source, target, message: isinstance(message, TombstonesTold) and next(pieces) > 1
    newcomer(cluster)
    node = cluster.servers["b"].node
    while not list(cluster.messages(TombstonesTold, "a", "b")):
        cluster.run(1)
    cluster.run(PATIENCE_MS - 10)
    assert not node._context.is_settled_in
    cluster.run(600)
    assert node._context.is_settled_in


def test_copies_are_held_against_a_list_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node is not sure before the last one. A later list with nothing new in it costs none of that."""
    monkeypatch.setattr(tombstones_module, "SLICE", 2)
    monkeypatch.setattr(tombstones_module, "SLICE_PAUSE_MS", 300)
    cluster, _ = away_from_a_restarted(monkeypatch, ends=8, pause_ms=1)
    node, table = cluster.servers["b"].node, cluster.servers["b"].table
    states = []
    while not node.is_trusting:
        cluster.run(1)
        states.append(sum(table.state(key_number(number)) == ENDED for number in range(8)))
    assert sorted(set(states)) == [0, 2, 4, 6, 8] and states[-1] == 8
    assert sum(state > 0 for state in states) > 900
    assert node._tombstones._keys is None and not node._tombstones._has_new_marks
    cluster.servers["b"].node.start_over(("a", "b"))
    began_ms = cluster.now_ms
    while not node._tombstones._told_ms:
        cluster.run(1)
    assert cluster.now_ms - began_ms < 300


def test_what_comes_while_the_copies_are_looked_at_has_them_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two members that tell different ends, each counts as having told when all copies were held against its own."""
    monkeypatch.setattr(tombstones_module, "SLICE", 2)
    monkeypatch.setattr(tombstones_module, "SLICE_PAUSE_MS", 20)
    cluster = Cluster("abc", strategy="all-to-all")
    keys = [key_number(number) for number in range(8)]
    for key in keys:
        cluster.create("b", key, x=1)
    cluster.run(50)
    cluster.mangle = told_only
    server = cluster.servers["b"]
    node = server.node
    told = node._tombstones
    told.start_over()
    for name, numbers in (("a", range(6, 8)), ("c", range(2))):
        other = Cluster("x", starts=False)
        for number in numbers:
            other.servers["x"].table.note_ended(key_number(number), cluster.now_ms + 10**7)
        (marks,) = other.servers["x"].table.ends.told(cluster.now_ms, batch=100)
        peer = node.peers[name]
        told._ask(peer)
        told.take_told(peer, TombstonesTold(cluster.now_ms, (), is_last=True, number=told._absences, marks=marks))
    assert not told._told_ms
    seen = set()
    while len(told._told_ms) < 2:
        cluster.run(1)
        seen.add((frozenset(told._told_ms), tuple(server.table.state(keys[place]) == ENDED for place in (0, 7))))
    assert (frozenset(), (False, True)) in seen, "it was looked at too early for the second"
    assert (frozenset("a"), (True, True)) in seen, "the first counts before the second"
    assert [server.table.state(key) == ENDED for key in keys] == [True] * 2 + [False] * 4 + [True] * 2


def test_an_answer_that_was_held_against_the_copies_too_late_does_not_count() -> None:
    """Its link is lost by then, and what ended since was not sent."""
    cluster = Cluster("ab", strategy="all-to-all")
    told = cluster.servers["b"].node._tombstones
    peer = cluster.servers["b"].node.peers["a"]
    assert told._told_ms["a"] > cluster.now_ms
    cluster.close("a", "b")
    told._complete(peer, told._absences)
    assert told._told_ms["a"] <= cluster.now_ms


def test_a_long_first_answer_survives_short_absences(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not asked for again; the absence is asked about after it, and until then the node is not sure."""
    slow_pieces(monkeypatch, 500)
    cluster = Cluster("a", strategy="all-to-all")
    keys = marked(cluster, "a", range(6))
    cluster.run(40_000)
    newcomer(cluster)
    cluster.run(1_200)
    server = cluster.servers["b"]
    for _ in range(2):
        server.is_stopped = True
        cluster.run(470)
        server.is_stopped = False
        cluster.run(100)
    assert server.node.counts["absences"] == 2 and not server.node.is_trusting
    asked = [message.ago_ms for message in cluster.messages(TombstonesAsked, "b", "a")]
    assert asked[0] == -1 and 450 <= asked[1] < 1_000 <= asked[2] < 2_000, "the second reaches back to the first"
    cluster.run(4_000)
    assert server.node.is_trusting and all(key in server.table.ends for key in keys)
    assert sum(bool(message.marks) for message in cluster.messages(TombstonesTold, "a", "b")) == 6


def test_a_piece_of_an_answer_to_an_earlier_absence_ends_no_later_one() -> None:
    """Its ends are taken. It may not reach back, or forward, as far."""
    cluster = Cluster("ab", strategy="all-to-all")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(20)
    server = cluster.servers["b"]
    cluster.mangle = lambda source, target, message: isinstance(message, (TombstonesTold, Changed))
    for _ in range(2):
        server.is_stopped = True
        cluster.run(490)
        server.is_stopped = False
        cluster.run(5)
    tombstones, peer = server.node._tombstones, server.node.peers["a"]
    assert tombstones._absences == 2
    held = cluster.held("b", key)
    assert held is not None
    items = ((key, held.end(ENDED, cluster.now_ms).pack()),)
    tombstones.take_told(peer, TombstonesTold(cluster.now_ms, items, is_last=True, number=1))
    assert server.table.state(key) == ENDED and not server.node.is_trusting
    assert tombstones._told_ms["a"] < cluster.now_ms - 500
    tombstones.take_told(peer, TombstonesTold(cluster.now_ms, (), is_last=True, number=2))
    assert server.node.is_trusting
