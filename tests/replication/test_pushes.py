"""Changes on their way: who is waited for, who is not, and what is left when somebody does not answer."""

from __future__ import annotations

import pytest

from sessile.backend import Acknowledged
from sessile.backend import Whole as Born
from sessile.record import ENDED, LIVE, Record
from sessile.replication.intake import REFUSED
from sessile.replication.messages import Changed, Digest, Whole, Writing
from tests.replication.cluster import Cluster


def test_ack_none_waits_for_nobody() -> None:
    """The answer is there at once, and the change arrives all the same."""
    cluster = Cluster("ab", strategy="all-to-all")
    key = cluster.first_key("a")
    ticket = cluster.create("a", key, ack="none", x=1)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    cluster.run(5)
    assert cluster.values(key)["b"] == {"x": 1}


def test_ack_one_waits_for_the_quickest_and_ack_all_for_everybody() -> None:
    """With one holder cut off, one is answered in time and all is not."""
    cluster = Cluster("abc", strategy="all-to-all")
    cluster.cut("a", "c")
    key = cluster.first_key("a")
    one = cluster.create("a", key, x=1)
    all_of_them = cluster.write("a", key, ack="all", y=1)
    cluster.run(10)
    assert (cluster.answer("a", one), cluster.answer("a", all_of_them)) == (Acknowledged.YES, None)


def test_alone_there_is_nobody_to_wait_for() -> None:
    """A node without others answers at once."""
    cluster = Cluster("a")
    assert cluster.answer("a", cluster.create("a", cluster.first_key("a"), x=1)) is Acknowledged.YES


def test_a_slow_holder_is_not_waited_for_alone() -> None:
    """Primary and backup: the backup says nothing, so the next member gets the change too, and that counts."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    backup, third = [name for name in cluster.servers["a"].node.placement.order(key) if name != "a"]
    cluster.cut("a", backup)
    ticket = cluster.write("a", key, y=2)
    cluster.run(80)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert cluster.values(key)[third] == {"x": 1, "y": 2}
    assert cluster.servers["a"].node.counts["second_targets"] == 1
    assert cluster.servers["a"].node.counts["denied_need"] == 1, "it had nothing of the session, so it got the whole"


def test_not_acknowledged_in_time_is_said() -> None:
    """Nobody else is there to take it: the answer is NO, once, after ack_timeout; it is settled when it arrives."""
    cluster = Cluster("ab", ack_timeout_ms=200)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    cluster.cut("a", "b")
    ticket = cluster.write("a", key, y=2)
    node = cluster.servers["a"].node
    cluster.run(150)
    assert (cluster.answer("a", ticket), node.is_settled(key)) == (None, False)
    cluster.run(100)
    assert cluster.answer("a", ticket) is Acknowledged.NO
    assert node.counts["ack_timeouts"] == 1
    cluster.heal()
    cluster.run(100)
    assert node.is_settled(key) and len(node._pushes) == 0


def test_a_server_that_was_stopped_blames_nobody_for_the_silence() -> None:
    """Its change was on its way for longer than ack_timeout, by its own fault: it waits on until somebody has it."""
    cluster = Cluster("abc", strategy="all-to-all")
    key = cluster.first_key("a")
    cluster.cut("a", "bc")
    ticket = cluster.create("a", key, x=1)
    cluster.servers["a"].is_stopped = True
    cluster.run(3_000)
    assert cluster.values(key).keys() == {"a"}
    cluster.servers["a"].is_stopped = False
    cluster.run(2)
    assert cluster.answer("a", ticket) is None
    cluster.heal()
    cluster.run(500)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert not cluster.servers["a"].node.counts["ack_timeouts"]
    assert cluster.values(key).keys() == {"a", "b", "c"}


def test_a_request_that_changed_nothing_waits_for_what_others_changed() -> None:
    """Without a change the answer comes when all that this node wrote to the session is held."""
    cluster = Cluster("ab", strategy="all-to-all", delay_ms=10)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    waiting = cluster.push("a", key, None)
    cluster.run(15)
    assert cluster.answer("a", waiting) is None
    cluster.run(10)
    assert cluster.answer("a", waiting) is Acknowledged.YES
    assert cluster.answer("a", cluster.push("a", key, None)) is Acknowledged.YES


def test_an_end_goes_to_every_member() -> None:
    """Holder or not, everybody knows of it before it is answered."""
    cluster = Cluster("abcd", copies=2)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    ticket = cluster.end("a", key)
    while cluster.answer("a", ticket) is None:
        cluster.run(1)
    states = [cluster.servers[name].table.state(key) for name in "abcd"]
    assert states == [ENDED] * 4


def test_an_end_is_waited_for_with_ack_none_too() -> None:
    """Whoever has not heard of it shows the session: no answer before that, and none to a request that comes meanwhile."""
    cluster = Cluster("abc", strategy="all-to-all")
    key = cluster.first_key("a")
    cluster.create("a", key, ack="none", x=1)
    cluster.run(10)
    ticket = cluster.end("a", key, ack="none")
    meanwhile = cluster.push("a", key, None, "none")
    assert (cluster.answer("a", ticket), cluster.answer("a", meanwhile)) == (None, None)
    while cluster.answer("a", ticket) is None:
        cluster.run(1)
    assert [cluster.servers[name].table.state(key) for name in "abc"] == [ENDED] * 3
    assert cluster.answer("a", meanwhile) is Acknowledged.YES


def test_a_holder_that_dies_is_not_waited_for() -> None:
    """The backup's process is gone: whoever takes its place gets the session, and the writer is answered."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    backup, third = [name for name in cluster.servers["a"].node.placement.order(key) if name != "a"]
    cluster.cut("a", backup)
    ticket = cluster.write("a", key, ack="all", y=2)
    cluster.kill(backup)
    cluster.run(600)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert cluster.values(key) == {"a": {"x": 1, "y": 2}, third: {"x": 1, "y": 2}}


def test_a_change_outlives_its_link() -> None:
    """What was sent over a link that broke is sent again when the peer is back."""
    cluster = Cluster("ab", ack_timeout_ms=5_000)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    cluster.mangle = lambda source, target, message: isinstance(message, Changed)
    ticket = cluster.write("a", key, y=2)
    cluster.run(5)
    cluster.mangle = lambda source, target, message: False
    cluster.close("a", "b")
    cluster.run(300)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert cluster.values(key)["b"] == {"x": 1, "y": 2}


def test_a_server_that_is_no_holder_lets_go_of_what_it_wrote() -> None:
    """It keeps its copy while a request may go on with it and until every holder has it, no longer."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    (proxy,) = set("abc") - set(cluster.servers["a"].node.placement.holders(key))
    record = cluster.asked(proxy, key).record
    assert record is not None
    cluster.servers[proxy].table.put(key, record)
    ticket = cluster.write(proxy, key, y=2)
    cluster.run(20)
    assert cluster.answer(proxy, ticket) is Acknowledged.YES
    assert cluster.servers[proxy].table.state(key) == LIVE
    cluster.run(2_500)
    assert cluster.held(proxy, key) is None
    assert set(cluster.values(key)) == set(cluster.servers["a"].node.placement.holders(key))


def test_a_new_tag_is_announced_before_what_is_written_under_it() -> None:
    """Peers hear of the tag once, and changes under it stay short."""
    cluster = Cluster("ab")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.write("a", key, y=1)
    cluster.servers["a"].writer = 99
    cluster.write("a", key, y=2)
    cluster.write("a", key, y=3)
    cluster.run(10)
    assert [message.writer for message in cluster.messages(Writing, "a", "b")][-1] == 99
    assert [message.writer for message in cluster.messages(Changed, "a", "b")] == [0, 0, 0]
    assert cluster.values(key)["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("overflowing", [True, False])
def test_a_peer_that_takes_too_long_is_left_to_repair(*, overflowing: bool) -> None:
    """Beyond the queue's limit changes are not sent, and repair brings them once the peer has caught up."""
    limit = 300 if overflowing else 10_000_000
    cluster = Cluster("ab", queue_bytes_max=limit, ack_timeout_ms=100)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    cluster.cut("a", "b")
    for number in range(20):
        cluster.write("a", key, y="x" * 100 + str(number))
    assert (cluster.servers["a"].node.counts["overflows"] == 1) is overflowing
    cluster.heal()
    cluster.run(500)
    assert cluster.values(key)["b"]["y"] == "x" * 100 + "19"
    assert bool(list(cluster.messages(Whole, "a", "b"))) or not overflowing
    node = cluster.servers["a"].node
    assert node.is_settled(key)
    passes = node.counts["repair_passes"]
    for _ in range(2):
        cluster.write("a", key, y="y")
        cluster.run(20)
    assert node.counts["repair_passes"] == passes, "it has caught up"


def test_what_a_full_queue_left_out_is_confirmed_though_another_member_brought_it() -> None:
    """Found by simulation: the copies are alike, so that repair sends nothing, and nobody would ever have confirmed it."""
    cluster = Cluster("ab", queue_bytes_max=300, ack_timeout_ms=100)
    one, other = cluster.servers["a"], cluster.servers["b"]
    keys = [cluster.first_key("a", start=100 * number) for number in range(5)]
    cluster.cut("a", "b")
    for key in keys:
        cluster.create("a", key, ack="all", x="x" * 100)
    cluster.run(400)
    for key in keys:
        other.table.put(key, Record.unpack(one.table.get(key) or b""))
    cluster.heal()
    cluster.close("a", "b")
    cluster.run(3_000)
    assert one.node.counts["overflows"]
    assert not one.node.waiting["pushes"]


def test_open_changes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many that nobody confirms: the oldest are left to repair."""
    monkeypatch.setattr("sessile.replication.pushes.OPEN_MAX", 5)
    cluster = Cluster("ab", ack_timeout_ms=50)
    cluster.cut("a", "b")
    for number in range(10):
        cluster.create("a", cluster.first_key("a", start=number * 50), x=number)
    node = cluster.servers["a"].node
    assert len(node._pushes) == node.waiting["pushes"] == node.counts["overflows"] == 5


def test_of_too_many_changes_the_oldest_one_is_left_to_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the session that waits for longest, what was written first."""
    monkeypatch.setattr("sessile.replication.pushes.OPEN_MAX", 2)
    cluster = Cluster("ab")
    cluster.cut("a", "b")
    key = cluster.first_key("a")
    cluster.create("a", key, ack="one", x=1)
    cluster.write("a", key, ack="all", y=1)
    cluster.create("a", cluster.first_key("a", start=50), x=1)
    assert [push.ack for push in cluster.servers["a"].node._pushes._open[key]] == ["all"]


def test_what_was_left_to_repair_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """An acknowledgement of a change that is not waited for any more changes nothing."""
    monkeypatch.setattr("sessile.replication.pushes.OPEN_MAX", 5)
    cluster = Cluster("ab", delay_ms=5)
    for number in range(10):
        cluster.create("a", cluster.first_key("a", start=number * 50), x=number)
    cluster.run(20)
    assert len(cluster.servers["a"].node._pushes) == 0


def test_what_nobody_else_is_known_to_hold_is_not_confirmed() -> None:
    """A change that waits, and one that nobody was there to take, until repair has brought it to somebody."""
    cluster = Cluster("ab")
    key = cluster.first_key("a")
    node = cluster.servers["a"].node
    cluster.create("a", key, x=1, ack="none")
    assert not node.is_confirmed(key)
    cluster.run(10)
    assert node.is_confirmed(key)
    cluster.kill("b")
    cluster.run(2_000)
    cluster.write("a", key, y=2)
    assert (node.is_settled(key), node.is_confirmed(key)) == (True, False)
    cluster.start("b", incarnation=2)
    cluster.run(1_000)
    assert node.is_confirmed(key) and cluster.values(key)["b"] == {"x": 1, "y": 2}


def test_what_is_remembered_of_doubts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node alone that writes to many sessions forgets the oldest of those that nobody else has."""
    monkeypatch.setattr("sessile.replication.pushes.OPEN_MAX", 3)
    cluster = Cluster("a")
    keys = [cluster.first_key("a", start=50 * number) for number in range(5)]
    for key in keys:
        cluster.create("a", key, x=1)
    assert [cluster.servers["a"].node.is_confirmed(key) for key in keys] == [True, True, False, False, False]


def test_a_session_that_is_gone_before_it_is_sent_is_not_waited_for() -> None:
    """A whole record is sent as the table holds it: where it holds none there is nothing to send."""
    cluster = Cluster("ab")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    record = cluster.held("a", key)
    assert record is not None
    cluster.servers["a"].table.drop(key)
    cluster.seen.clear()
    ticket = cluster.push("a", key, Born(key, record))
    assert cluster.answer("a", ticket) is Acknowledged.YES
    cluster.run(10)
    assert not list(cluster.messages(Whole, "a", "b"))


def test_a_session_that_runs_out_of_time_while_it_waits_is_given_up() -> None:
    """When members change it is sent to nobody and no longer open; who waits for it is told that nobody has it."""
    cluster = Cluster("abc", copies=2, ack_timeout_ms=3_000)
    key = cluster.first_key("a")
    backup = cluster.servers["a"].node.placement.order(key)[1]
    cluster.cut("a", "bc")
    ticket = cluster.create("a", key, x=1)
    cluster.write("a", key, y=1)
    cluster.servers["a"].table.drop(key)
    node = cluster.servers["a"].node
    assert len(node._pushes) == 2
    cluster.kill(backup)
    assert len(node._pushes) == 0 and not node.is_confirmed(key)
    cluster.run(3_100)
    assert cluster.answer("a", ticket) is Acknowledged.NO


def test_who_has_no_room_is_not_made_up_for_while_another_may_take_it() -> None:
    """The full holder denies; the other's answer is still to come, so nobody else is sent the session at once."""
    cluster = Cluster("abcd", strategy="primary-backup", copies=3, second_target_ms=500)
    key = cluster.first_key("a")
    _, full, slow, spare = cluster.servers["a"].node.placement.order(key)
    cluster.servers[full].table._sessions_max = 0
    cluster.cut("a", slow)
    ticket = cluster.create("a", key, x=1)
    cluster.run(100)
    assert cluster.servers["a"].node.counts["denied_no_room"] == 1
    assert cluster.answer("a", ticket) is None and cluster.held(spare, key) is None
    cluster.heal()
    cluster.run(5)
    assert cluster.answer("a", ticket) is Acknowledged.YES


def test_who_leaves_is_made_up_for_at_once() -> None:
    """A backup that goes says so before it denies the change: the next member has the session within two ways."""
    cluster = Cluster("abc", copies=2, second_target_ms=5_000)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    _, backup, third = cluster.servers["a"].node.placement.order(key)
    cluster.stop(backup)
    ticket = cluster.write("a", key, y=2)
    cluster.run(4)
    assert cluster.servers["a"].node.counts["denied_leaving"] == 1
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert cluster.values(key)[third] == {"x": 1, "y": 2}


def test_a_session_that_is_gone_when_it_is_denied_is_sent_to_nobody_else() -> None:
    """Its record ran out of time meanwhile: there is nothing left for the next member."""
    cluster = Cluster("abc", copies=2, second_target_ms=5_000, ack_timeout_ms=100)
    key = cluster.first_key("a")
    _, full, third = cluster.servers["a"].node.placement.order(key)
    cluster.servers[full].table._sessions_max = 0
    ticket = cluster.create("a", key, x=1)
    cluster.servers["a"].table.drop(key)
    cluster.run(150)
    assert cluster.servers["a"].node.counts["denied_no_room"] == 1
    assert cluster.values(key) == {} and not list(cluster.messages(Whole, "a", third))
    assert cluster.answer("a", ticket) is Acknowledged.NO


def test_a_tombstone_is_not_let_go_of_with_what_was_written_before() -> None:
    """A server that is no holder writes while another ends the session: it goes on knowing of the end."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("a")
    third = cluster.servers["a"].node.placement.order(key)[2]
    cluster.create(third, key, x=1)
    cluster.run(10)
    cluster.end("a", key)
    cluster.write(third, key, y=2)
    cluster.run(3_000)
    held = cluster.held(third, key)
    assert held is not None and held.state == ENDED


def test_a_denial_that_comes_last_leaves_nothing_open() -> None:
    """The backup has it; the second target, without room for it, says so when all else is done."""
    cluster = Cluster("abc", copies=2, second_target_ms=2, delay_ms=5)
    key = cluster.first_key("a")
    _, backup, third = cluster.servers["a"].node.placement.order(key)
    cluster.servers[third].table._sessions_max = 0
    ticket = cluster.create("a", key, x=1)
    cluster.run(100)
    assert cluster.servers["a"].node.counts["denied_no_room"] == 1, f"{third} was not asked, though {backup} took long"
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert cluster.servers["a"].node.waiting["pushes"] == 0


def test_who_has_a_change_is_not_sent_it_again_when_members_change() -> None:
    """Of all holders one is out of reach: neither a link that broke nor a newcomer makes the others get it twice."""
    cluster = Cluster("abc", strategy="all-to-all", ack_timeout_ms=5_000)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    cluster.mangle = lambda source, target, message: target == "c" and isinstance(message, Changed | Whole)
    ticket = cluster.write("a", key, ack="all", y=2)
    cluster.run(10)
    cluster.seen.clear()
    cluster._addresses = tuple("abcd")
    cluster.start("d")
    cluster.close("a", "b")
    cluster.run(300)
    assert set(cluster.servers["a"].node.peers) == set("bcd")
    assert not list(cluster.messages(Whole, "a", "b")) and list(cluster.messages(Whole, "a", "d"))
    assert cluster.answer("a", ticket) is None
    cluster.mangle = lambda source, target, message: False
    cluster.close("a", "c")
    cluster.run(300)
    assert cluster.answer("a", ticket) is Acknowledged.YES


def test_a_server_that_is_no_holder_keeps_a_copy_that_changed_again() -> None:
    """Two quiet seconds count from the last change: somebody may rely on what came after the one that is held."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    (proxy,) = set("abc") - set(cluster.servers["a"].node.placement.holders(key))
    record = cluster.asked(proxy, key).record
    assert record is not None
    cluster.servers[proxy].table.put(key, record)
    cluster.write(proxy, key, y=2)
    cluster.run(1_500)
    cluster.write(proxy, key, y=3)
    cluster.run(1_000)
    assert cluster.values(key)[proxy] == {"x": 1, "y": 3}
    cluster.run(1_500)
    assert cluster.held(proxy, key) is None


def test_who_has_no_room_is_not_asked_again() -> None:
    """Every other server is full: each refuses once, and that is all the traffic there is."""
    cluster = Cluster("abc", copies=2, second_target_ms=2, ack_timeout_ms=200)
    key = cluster.first_key("a")
    for name in "bc":
        cluster.servers[name].table._sessions_max = 0
    ticket = cluster.create("a", key, x=1)
    cluster.run(300)
    assert cluster.servers["a"].node.counts["denied_no_room"] == 2
    assert cluster.answer("a", ticket) is Acknowledged.NO
    cluster.close("a", cluster.servers["a"].node.placement.order(key)[1])
    cluster.run(100)
    assert cluster.servers["a"].node.counts["denied_no_room"] == 3, "over a new link it may be asked anew"


def test_a_holder_that_was_started_again_has_confirmed_nothing() -> None:
    """With ack=all and one holder cut off, the other is restarted: it counts again only when it has the change again."""
    cluster = Cluster("abc", strategy="all-to-all", ack_timeout_ms=60_000)
    key = cluster.first_key("a")
    cluster.cut("a", "c")
    ticket = cluster.create("a", key, ack="all", x=1)
    cluster.run(10)
    (push,) = cluster.servers["a"].node._pushes._open[key]
    assert push.confirmed == {"b"}
    cluster.kill("b")
    cluster.start("b", incarnation=2)
    cluster.mangle = lambda source, target, message: isinstance(message, Whole)
    cluster.run(200)
    assert "b" in cluster.servers["a"].node.peers and push.confirmed == set()
    assert cluster.answer("a", ticket) is None


@pytest.mark.parametrize("ack", ["one", "all"])
def test_what_everybody_has_refused_is_said_at_once(ack: str) -> None:
    """Every server that could hold the change is full: there is nothing to wait for."""
    cluster = Cluster("abc", copies=2)
    for name in "bc":
        cluster.servers[name].table._sessions_max = 0
    ticket = cluster.create("a", cluster.first_key("a"), ack=ack, x=1)
    cluster.run(10)
    assert cluster.answer("a", ticket) is Acknowledged.NO
    again = cluster.push("a", cluster.first_key("a"), None, ack)
    assert cluster.answer("a", again) is Acknowledged.NO


def test_a_change_that_one_of_all_has_refused_is_not_held_by_all() -> None:
    """The others have it; that they must all have it cannot come true."""
    cluster = Cluster("abc", strategy="all-to-all")
    cluster.servers["b"].table._sessions_max = 0
    key = cluster.first_key("a")
    one = cluster.create("a", key, ack="one", x=1)
    every = cluster.write("a", key, ack="all", x=2)
    cluster.run(10)
    assert (cluster.answer("a", one), cluster.answer("a", every)) == (Acknowledged.YES, Acknowledged.NO)


def test_a_refusal_ends_no_waiting_while_somebody_else_may_still_confirm() -> None:
    """The only other one lost its link a moment ago, and takes the change when it is back."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("a")
    second, third = (name for name in cluster.servers["a"].node.placement.order(key) if name != "a")
    cluster.servers[second].table._sessions_max = 0
    cluster.close("a", third)
    ticket = cluster.create("a", key, x=1)
    cluster.run(2)
    later = cluster.push("a", key, None)
    assert cluster.answer("a", ticket) is cluster.answer("a", later) is None
    cluster.run(300)
    assert cluster.answer("a", ticket) is cluster.answer("a", later) is Acknowledged.YES


def test_a_server_that_leaves_takes_ends() -> None:
    """It serves until it is gone: whoever ends a session need not wait for its goodbye."""
    cluster = Cluster("abc", copies=2, delay_ms=2)
    keys = [cluster.first_key("a", start=50 * number) for number in range(4)]
    for key in keys:
        cluster.create("a", key, x=1)
    cluster.run(100)
    holder = cluster.servers["a"].node.placement.others(keys[0])[0]
    stopped = cluster.stop(holder)
    cluster.run(3)
    ticket = cluster.end("a", keys[0])
    while cluster.answer("a", ticket) is None:
        assert cluster.answer(holder, stopped) is None
        cluster.run(1)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert cluster.servers[holder].table.state(keys[0]) == ENDED
    cluster.run(1_000)
    assert cluster.answer(holder, stopped) is Acknowledged.YES


def test_an_end_finds_room_in_a_queue_that_is_full() -> None:
    """Changes are left to repair; that a user has logged out is not."""
    cluster = Cluster("ab", queue_bytes_max=2_000, delay_ms=20)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(100)
    for number in range(40):
        cluster.create("a", cluster.first_key("a", start=100 * number + 100), ack="none", x="x" * 100)
    assert cluster.servers["a"].node.peers["b"].is_overflowed
    ticket = cluster.end("a", key)
    cluster.run(45)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert cluster.servers["b"].table.state(key) == ENDED


def test_an_end_that_not_every_member_has_is_kept_in_full() -> None:
    """However many other sessions end: once the member is back, it gets the tombstone."""
    cluster = Cluster("ab", tombstone_keep_ms=60_000)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(100)
    cluster.close("a", "b")
    cluster.end("a", key)
    table = cluster.servers["a"].table
    table._bytes_max = 0
    table._bound_tombstones()
    assert table.state(key) == ENDED
    cluster.run(500)
    assert cluster.servers["b"].table.has_ended(key)
    table._bound_tombstones()
    assert table.state(key) is None and table.has_ended(key)


def test_a_change_that_is_sent_late_is_told_under_its_own_tag() -> None:
    """The link was too full for it; meanwhile the server writes, and has announced, another tag."""
    cluster = Cluster("abc", strategy="all-to-all", second_target_ms=30)
    key, other = cluster.first_key("a"), cluster.first_key("a", start=9_000)
    for each in (key, other):
        cluster.create("b", each, x=1)
    cluster.run(10)
    full = cluster.servers["a"].node.peers["c"]
    full.outstanding_bytes += 10**9
    cluster.cut("a", "b")
    cluster.write("a", key, y=2)
    full.outstanding_bytes -= 10**9
    full.is_overflowed = False
    cluster.servers["a"].writer += 1
    cluster.write("a", other, y=2)
    cluster.run(100)
    for each in (key, other):
        mine, theirs = cluster.held("a", each), cluster.held("c", each)
        assert mine is not None and theirs is not None
        assert theirs.version == mine.version


def test_a_session_that_is_gone_when_another_one_is_to_be_sent_it_is_sent_to_nobody() -> None:
    """The holder takes long, and the session has left the table meanwhile."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("a")
    cluster.servers[cluster.servers["a"].node.placement.others(key)[0]].is_stopped = True
    cluster.create("a", key, x=1)
    cluster.servers["a"].table.drop(key)
    cluster.run(100)
    assert cluster.servers["a"].node.counts["second_targets"] == 0


def test_what_repair_has_brought_is_confirmed() -> None:
    """Whoever waits for the change is answered when the other one has all that is held here, however it came there."""
    cluster = Cluster("ab", copies=2)
    key = cluster.first_key("a")
    cluster.mangle = lambda source, target, message: isinstance(message, Born | Whole | Changed)
    ticket = cluster.create("a", key, x=1)
    cluster.run(10)
    node = cluster.servers["a"].node
    assert cluster.answer("a", ticket) is None and not node.is_confirmed(key)
    node._pushes.confirmed_by_repair(key, "b")
    for effect in node._context.take_effects():
        cluster._perform(cluster.servers["a"], effect)
    assert cluster.answer("a", ticket) is Acknowledged.YES and node.is_confirmed(key)


def test_a_holder_may_take_three_times_as_long_as_usual() -> None:
    """Then another member gets the change as well: one that is always slow is no reason to send everything twice."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("a")
    node = cluster.servers["a"].node
    backup = node.placement.order(key)[1]
    node.peers[backup].usual_ms = 30.0
    cluster.cut("a", backup)
    cluster.create("a", key, x=1)
    cluster.run(89)
    assert node.counts["second_targets"] == 0
    cluster.run(1)
    assert node.counts["second_targets"] == 1


def test_a_change_that_is_held_as_demanded_is_sent_to_nobody_else() -> None:
    """One holder has it, which is enough; the other one takes long."""
    cluster = Cluster("abcd", copies=3)
    key = cluster.first_key("a")
    node = cluster.servers["a"].node
    _, quick, slow, spare = node.placement.order(key)
    cluster.cut("a", slow)
    ticket = cluster.create("a", key, x=1)
    cluster.run(100)
    assert cluster.answer("a", ticket) is Acknowledged.YES and node.waiting["pushes"] == 1
    assert set(cluster.values(key)) == {"a", quick} and cluster.held(spare, key) is None
    assert node.counts["second_targets"] == 0


def test_nothing_is_left_of_who_has_waited() -> None:
    """Answered with yes or with no, or too late: of every session in turn."""
    cluster = Cluster("ab", ack_timeout_ms=50)
    keys = [cluster.first_key("a", start=50 * number) for number in range(3)]
    cluster.create("a", keys[0], x=1)
    cluster.run(10)
    cluster.servers["b"].table._sessions_max = 0
    cluster.create("a", keys[1], x=1)
    cluster.run(10)
    cluster.cut("a", "b")
    cluster.create("a", keys[2], x=1)
    cluster.run(100)
    assert [answer.value for answer in cluster.servers["a"].answers.values() if isinstance(answer, Acknowledged)] == [
        Acknowledged.YES.value,
        Acknowledged.NO.value,
        Acknowledged.NO.value,
    ]
    assert not cluster.servers["a"].node._pushes._waits


def test_one_more_is_asked_after_another() -> None:
    """As long as nobody answers: neither the holder nor the first that is no holder."""
    cluster = Cluster("abcd", copies=2)
    key = cluster.first_key("a")
    _, backup, third, fourth = cluster.servers["a"].node.placement.order(key)
    cluster.cut("a", backup + third)
    ticket = cluster.create("a", key, x=1)
    cluster.run(60)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert set(cluster.values(key)) == {"a", fourth} and cluster.servers["a"].node.counts["second_targets"] == 2


def test_a_holder_whose_link_broke_a_moment_ago_is_made_up_for_no_sooner_than_another() -> None:
    """It is back in a moment, and gets the change then."""
    cluster = Cluster("abc", copies=2, second_target_ms=5_000)
    key = cluster.first_key("a")
    _, backup, third = cluster.servers["a"].node.placement.order(key)
    cluster.mangle = lambda source, target, message: isinstance(message, Whole)
    ticket = cluster.create("a", key, x=1)
    cluster.run(5)
    cluster.mangle = lambda source, target, message: False
    cluster.close("a", backup)
    cluster.run(300)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert set(cluster.values(key)) == {"a", backup} and cluster.servers["a"].node.counts["second_targets"] == 0
    assert not list(cluster.messages(Whole, "a", third))


def test_a_change_that_nobody_is_left_to_take_is_not_open() -> None:
    """The only other member has died: who waited is answered, and nothing more is expected of the change."""
    cluster = Cluster("ab", ack_timeout_ms=60_000)
    key = cluster.first_key("a")
    cluster.cut("a", "b")
    ticket = cluster.create("a", key, x=1)
    cluster.kill("b")
    cluster.run(2_000)
    node = cluster.servers["a"].node
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert node.is_settled(key) and node.waiting["pushes"] == 0 and not node.is_confirmed(key)


@pytest.mark.parametrize("ack", ["one", "all"])
def test_an_end_that_was_refused_is_waited_for(ack: str) -> None:
    """The member may still show the session: not before its lease is over may anybody be told that it has ended."""
    cluster = Cluster("ab")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    cluster.cut("a", "b")
    ticket = cluster.end("a", key, ack=ack)
    pushes = cluster.servers["a"].node._pushes
    (push,) = pushes._open[key]
    pushes._denied(push, "b", REFUSED)
    later = cluster.push("a", key, None)
    assert cluster.answer("a", ticket) is cluster.answer("a", later) is None


def test_a_change_that_everybody_refused_is_held_by_who_takes_the_next_one() -> None:
    """There is room again: the record that is sent now has both."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("a")
    for name in "bc":
        cluster.servers[name].table._sessions_max = 0
    first = cluster.create("a", key, x=1)
    cluster.run(10)
    for name in "bc":
        cluster.servers[name].table._sessions_max = 1_000
    second = cluster.write("a", key, y=2)
    cluster.run(20)
    assert (cluster.answer("a", first), cluster.answer("a", second)) == (Acknowledged.NO, Acknowledged.YES)
    node = cluster.servers["a"].node
    assert node.is_settled(key) and node.waiting["pushes"] == 0


def test_a_whole_record_confirms_what_the_queue_had_no_room_for() -> None:
    """The other holder dies, and one record brings the next one every change: all are answered, though not each is sent."""
    cluster = Cluster("abc", copies=2, queue_bytes_max=100, ack_timeout_ms=5_000)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    (backup,) = cluster.servers["a"].node.placement.others(key)
    (spare,) = set("bc") - {backup}
    cluster.cut("a", backup)
    cluster.cut(backup, spare)
    cluster.cut("a", spare)
    cluster.close("a", spare)
    tickets = [cluster.write("a", key, x=number) for number in range(2, 6)]
    cluster.run(100)  # no other one can be asked to hold them
    cluster.mangle = lambda source, target, message: isinstance(message, Digest)  # repair finds that nothing differs
    cluster.cuts.discard(frozenset(("a", spare)))
    cluster.dial("a", spare)
    cluster.run(2_000)
    assert cluster.servers["a"].node.placement.others(key) == (spare,)
    assert [cluster.answer("a", ticket) for ticket in tickets] == [Acknowledged.YES] * 4
    assert not len(cluster.servers["a"].node._pushes)
