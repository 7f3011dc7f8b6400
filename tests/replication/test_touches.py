"""A session that is used stays alive at every holder, whatever becomes of the links over which that is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessile.backend import Acknowledged
from sessile.replication.events import SessionTouched
from sessile.replication.messages import Offered, Touched
from sessile.replication.peer import Peer
from sessile.replication.touches import GATHER_MS, VIEW_MS, Touches
from tests.replication.cluster import Cluster

if TYPE_CHECKING:
    from sessile.token import SessionKey


def shared(names: str, **config: Any) -> tuple[Cluster, SessionKey]:
    cluster = Cluster(names, **config)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(15_000)
    return cluster, key


def unused_ms(cluster: Cluster, name: str, key: SessionKey) -> int:
    """For how long the session was not used, as this server sees it."""
    held = cluster.held(name, key)
    assert held is not None
    return cluster.now_ms - held.touched_ms


def test_every_other_holder_is_told() -> None:
    """Not only the first of them."""
    cluster, key = shared("abcd", copies=3)
    cluster.touch("a", key)
    cluster.run(100)
    others = cluster.servers["a"].node.placement.others(key)
    assert len(others) == 2
    assert all(unused_ms(cluster, name, key) < 200 for name in others)


def test_a_crash_right_after_a_use_does_not_take_it() -> None:
    """A user comes back after a long rest and is answered; had the use gone, the rest would still count."""
    cluster, key = shared("abc", copies=3)
    cluster.touch("a", key)
    used_ms = cluster.now_ms
    cluster.run(2)
    cluster.kill("a")
    assert all(unused_ms(cluster, name, key) <= cluster.now_ms - used_ms + 1 for name in "bc")


def test_what_is_used_in_quick_succession_is_told_together_soon() -> None:
    """The first use at once, those of the next milliseconds in one message; after a pause the next is told at once again."""
    cluster, key = shared("ab")
    keys = [cluster.first_key("a", start=50 * number) for number in range(1, 5)]
    for each in keys:
        cluster.create("a", each, x=1)
    cluster.run(1_000)
    cluster.seen.clear()
    for each in (key, *keys[:-1]):
        cluster.touch("a", each)
        cluster.run(1)
    cluster.run(6)
    assert [len(message.items) for message in cluster.messages(Touched, "a")] == [1, 3]
    cluster.touch("a", keys[-1])
    cluster.run(2)
    assert [len(message.items) for message in cluster.messages(Touched, "a")] == [1, 3, 1]


@pytest.mark.parametrize("cut_ms", [300, 900, 5_000])
def test_what_is_told_while_a_link_is_down_is_told_again(cut_ms: int) -> None:
    """A user who was active all the time is not logged out by a crash after the cut has healed."""
    cluster, key = shared("ab", repair_every_ms=200)
    cluster.touch("a", key)
    cluster.cut("a", "b")  # what was told just now is lost as well
    cluster.mangle = lambda source, target, message: isinstance(message, Touched)
    cluster.run(cut_ms)
    cluster.touch("a", key)
    used_ms = cluster.now_ms
    cluster.run(300)
    cluster.close("a", "b")
    cluster.mangle = lambda source, target, message: False
    cluster.heal()
    cluster.run(3_000)
    cluster.kill("a")
    assert unused_ms(cluster, "b", key) <= cluster.now_ms - used_ms + 10


def test_a_holder_that_a_proxy_could_not_tell_hears_it_from_the_other() -> None:
    """The server where the session is used holds no copy, and its link to one of the two holders is down."""
    cluster, key = shared("abc", copies=2)
    holders = cluster.servers["a"].node.placement.holders(key)
    (proxy,) = set("abc") - set(holders)
    cluster.asked(proxy, key)
    cluster.cut(proxy, holders[1])
    cluster.run(100)
    cluster.handle(proxy, SessionTouched(key, cluster.now_ms))
    used_ms = cluster.now_ms
    cluster.run(13_000)
    assert unused_ms(cluster, holders[1], key) <= cluster.now_ms - used_ms + 200


@pytest.mark.parametrize("rest_ms", [100, VIEW_MS + 1_000])
def test_a_proxy_that_could_tell_no_holder_tells_them_over_the_next_links(rest_ms: int) -> None:
    """Found by simulation: it holds no copy, so that no pass of repair tells it. What is long ago is not told."""
    cluster, key = shared("abc", copies=2, repair_every_ms=200)
    order = cluster.servers["a"].node.placement.order(key)
    proxy, holders = order[2], order[:2]
    for holder in holders:
        cluster.close(proxy, holder)
    cluster.mangle = lambda source, target, message: source == proxy and isinstance(message, Touched)
    used_ms = cluster.now_ms
    cluster.handle(proxy, SessionTouched(key, used_ms))
    cluster.run(rest_ms)
    cluster.mangle = lambda source, target, message: False
    for holder in holders:
        cluster.close(proxy, holder)
    cluster.run(1_000)
    is_told = rest_ms < VIEW_MS
    for holder in holders:
        assert (unused_ms(cluster, holder, key) <= cluster.now_ms - used_ms + 10) is is_told


def test_uses_of_sessions_that_are_not_held_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones, and none that is long ago, however late it is noted."""
    monkeypatch.setattr("sessile.replication.touches.UNHELD_MAX", 3)
    cluster, _ = shared("abc", copies=2)
    touches = cluster.servers["a"].node._touches
    keys = [bytes([number]) * 16 for number in range(5)]
    for key in keys:
        cluster.handle("a", SessionTouched(key, cluster.now_ms))
        cluster.run(10)
    assert list(touches._unheld) == keys[-3:]
    cluster.handle("a", SessionTouched(keys[0], cluster.now_ms - 2 * VIEW_MS))
    cluster.run(VIEW_MS + 10)
    cluster.handle("a", SessionTouched(keys[0], cluster.now_ms - 2 * VIEW_MS))
    cluster.run(10)
    assert not touches._unheld


def test_a_server_that_leaves_tells_what_it_has_not_told() -> None:
    """The last uses go before the goodbye, those of sessions that it does not hold as well."""
    cluster, key = shared("abc", copies=2)
    holders = cluster.servers["a"].node.placement.holders(key)
    (proxy,) = set("abc") - set(holders)
    stopped = cluster.stop(proxy)
    cluster.run(15)
    cluster.handle(proxy, SessionTouched(key, cluster.now_ms))
    used_ms = cluster.now_ms
    cluster.run(40)
    assert cluster.answer(proxy, stopped) is Acknowledged.YES
    for name in holders:
        assert unused_ms(cluster, name, key) <= cluster.now_ms - used_ms + 10


def test_a_hand_over_tells_when_what_the_other_has_was_used() -> None:
    """The copies are of one version, the newer use is known to the one that leaves alone."""
    cluster, key = shared("ab")
    cluster.mangle = lambda source, target, message: isinstance(message, Touched)
    cluster.touch("a", key)
    used_ms = cluster.now_ms
    cluster.run(100)
    cluster.mangle = lambda source, target, message: False
    cluster.stop("a")
    cluster.run(500)
    assert unused_ms(cluster, "b", key) <= cluster.now_ms - used_ms + 10


def test_what_was_told_is_not_told_for_ever() -> None:
    """Each pass of repair tells what is new since the last one; a session that rests costs nothing."""
    cluster, key = shared("ab")
    cluster.touch("a", key)
    cluster.run(30_000)
    cluster.seen.clear()
    cluster.run(30_000)
    assert not list(cluster.messages(Touched))


def test_a_member_that_becomes_a_holder_hears_of_uses_that_it_was_not_told_of() -> None:
    """It has a copy of the same version, which it was about to let go."""
    cluster, key = shared("abc", copies=2, repair_every_ms=200)
    other = cluster.servers["a"].node.placement.others(key)[0]
    (third,) = set("abc") - {"a", other}
    cluster.mangle = lambda source, target, message: isinstance(message, Offered)
    record = cluster.held("a", key)
    assert record is not None
    cluster.servers[third].table.put(key, record)
    cluster.touch("a", key)
    used_ms = cluster.now_ms
    cluster.run(5_000)
    assert unused_ms(cluster, third, key) > 15_000
    cluster.kill(other)
    cluster.run(1_000)
    assert unused_ms(cluster, third, key) <= cluster.now_ms - used_ms + 10


def test_a_pass_over_another_link_has_told_nothing() -> None:
    """The link was lost and another one came while the pass went over the copies."""
    cluster, _ = shared("ab")
    touches = cluster.servers["a"].node._touches
    before_ms = touches.since_ms("b")
    touches.told(Peer("b", 99, 0), cluster.now_ms)
    assert touches.since_ms("b") == before_ms
    touches.told(cluster.servers["a"].node.peers["b"], cluster.now_ms)
    assert touches.since_ms("b") > before_ms


def test_how_much_of_what_was_told_a_link_may_have_lost() -> None:
    """What was sent in the time in which two silences end a link, and what waited to be told before."""
    cluster = Cluster("ab", copies=2)
    node = cluster.servers["a"].node
    touches, timings = node._touches, node._context.config.timings
    assert Touches(node._context).since_ms("b") < -(10**15), "nothing was told"
    touches.told(node.peers["b"], cluster.now_ms)
    since_ms = touches.since_ms("b")
    assert since_ms == cluster.now_ms - 2 * timings.dead_after_ms - GATHER_MS
    touches.view_changed()
    assert touches.since_ms("b") == cluster.now_ms - VIEW_MS, "a new holder may lack more"
    touches.told(node.peers["b"], cluster.now_ms - 2 * VIEW_MS)
    since_ms = touches.since_ms("b")
    touches.view_changed()
    assert touches.since_ms("b") == since_ms
    touches.begins_empty("b")
    assert touches.since_ms("b") == cluster.now_ms
    touches.forget("b")
    assert touches.since_ms("b") < -(10**15)
