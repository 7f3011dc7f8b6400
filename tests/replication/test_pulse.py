"""The lease that a node's beats give it: no logout is answered while a server that has not confirmed it may serve the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessile.backend import Acknowledged
from sessile.record import ENDED
from sessile.replication.events import LinkDown, Woken
from sessile.replication.member import Timings
from sessile.replication.messages import Beat, TombstonesAsked
from sessile.replication.pulse import Pulse
from tests.replication.cluster import Cluster
from tests.replication.engines import Browser, Engines

if TYPE_CHECKING:
    from sessile.token import SessionKey


def shared(names: str = "ab") -> tuple[Cluster, SessionKey]:
    """Servers that all hold one session."""
    cluster = Cluster(names, strategy="all-to-all")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(400)
    return cluster, key


def stop(cluster: Cluster, name: str, ms: int) -> None:
    """Its process is stopped for so long, and has not done anything yet when this returns."""
    cluster.servers[name].is_stopped = True
    cluster.run(ms)
    cluster.servers[name].is_stopped = False


def test_the_lease_counts_from_the_last_beat() -> None:
    """450 ms of 500; what was missed meanwhile keeps it from beginning anew until it has been told."""
    pulse = Pulse(Timings(), 1_000)
    assert pulse.sure_until_ms == 1_450
    assert pulse.ends_ms == 1_450
    pulse.beat(1_200)
    assert pulse.sure_until_ms == 1_650 and pulse.is_trusted
    pulse.distrust()
    pulse.beat(2_000)
    assert pulse.sure_until_ms == 0 and not pulse.is_trusted and pulse.ends_ms == 2_450
    pulse.trust()
    assert pulse.sure_until_ms == 2_450 and pulse.is_trusted


def test_the_last_certain_moment_is_before_the_lease_ends() -> None:
    """At its very end it is over, for whatever thread asks."""
    cluster, key = shared()
    node = cluster.servers["b"].node
    until_ms = node._pulse.sure_until_ms
    assert node.is_sure(key, until_ms - 1) and not node.is_sure(key, until_ms)


@pytest.mark.parametrize("names", ["ab", "abc"])
@pytest.mark.parametrize("stopped_ms", [300, 460, 520, 700, 1_000, 1_300, 4_000])
def test_who_was_stopped_serves_nobody_who_has_logged_out(names: str, stopped_ms: int) -> None:
    """Its request is worked on before its event loop has done anything, as under WSGI."""
    cluster = Engines(names, strategy="all-to-all")
    browser, other = Browser(), Browser()
    cluster.request("a", browser, user="ann")
    other.cookies = dict(browser.cookies)
    cluster.run(370)
    server = cluster.servers["b"]
    server.is_stopped = True
    began_ms = cluster.now_ms
    session = cluster.open("a", browser)
    assert session["user"] == "ann"
    session.end()
    steps = cluster.engines["a"].commit(session)
    logout = cluster.engines["a"].settle(steps)
    (ticket,) = _asked(logout)
    while cluster.now_ms < began_ms + stopped_ms:
        cluster.run(1)
    is_answered = cluster.answer("a", ticket) is not None
    assert is_answered or stopped_ms < 700
    server.is_stopped = False
    opened = cluster.open("b", other)
    assert not (is_answered and dict(opened))
    cluster.run(3_000)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    logout.close()
    assert not dict(cluster.open("b", other))


def _asked(waiting: object) -> tuple[int]:
    """The ticket that a request waits for."""
    return (waiting.send(None).number,)  # type: ignore[attr-defined]


@pytest.mark.parametrize("late_ms", [200, 350, 400, 430, 460, 600, 900])
def test_who_was_late_itself_finds_nobody_silent(late_ms: int) -> None:
    """What others said meanwhile lies unread in its sockets when it goes on: an end waits for them all the same."""
    cluster, key = shared("abc")
    cluster.run(90)
    stop(cluster, "a", 200)  # from now on it beats much later than the others
    cluster.run(255)
    assert cluster.servers["b"].node._pulse.beaten_ms < cluster.servers["a"].node._pulse.beaten_ms - 150
    stop(cluster, "a", late_ms)
    cluster.handle("a", Woken())  # the timer comes before the sockets
    ticket = cluster.end("a", key)
    assert cluster.answer("a", ticket) is None
    assert cluster.servers["b"].node.is_sure(key, cluster.now_ms)
    cluster.run(5)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert cluster.servers["b"].table.state(key) == ENDED


@pytest.mark.parametrize("stopped_ms", [300, 440, 700])
def test_a_link_that_closes_ends_no_lease(stopped_ms: int) -> None:
    """One side of a link closes while the other process is stopped: that one's lease goes on, and is waited for."""
    cluster, key = shared()
    while cluster.servers["b"].node._pulse.beaten_ms != cluster.now_ms:
        cluster.run(1)
    cluster.servers["b"].is_stopped = True
    link = cluster.servers["a"].node.peers["b"].link
    cluster._forget("a", link)
    cluster.handle("a", LinkDown(link))
    ticket = cluster.end("a", key)
    node = cluster.servers["b"].node
    for _ in range(stopped_ms):
        cluster.run(1)
        assert cluster.answer("a", ticket) is None or not node.is_sure(key, cluster.now_ms)
    cluster.servers["b"].is_stopped = False
    assert node.is_sure(key, cluster.now_ms) is (stopped_ms < 450)
    cluster.run(2_500)
    assert cluster.answer("a", ticket) is Acknowledged.YES


def test_a_silent_member_is_waited_for_until_its_lease_is_over_however_short_ack_timeout_is() -> None:
    """An answer that gives up sooner would be given while the other still serves the session."""
    cluster = Cluster("ab", strategy="all-to-all", ack_timeout_ms=50)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(400)
    cluster.servers["b"].is_stopped = True
    ticket = cluster.end("a", key)
    node = cluster.servers["b"].node
    assert node.end_timeout_ms == 1_000
    while cluster.answer("a", ticket) is None:
        cluster.run(1)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert not node.is_sure(key, cluster.now_ms)


def test_every_link_carries_every_beat() -> None:
    """Whatever else is sent: the lease counts from what each peer was sent last, so none may be left out."""
    cluster, key = shared("abc")
    cluster.seen.clear()
    for _ in range(200):
        cluster.write("a", key, x=2)
        cluster.run(10)
    assert {7, 8} >= {len(list(cluster.messages(Beat, "a", name))) for name in "bc"}


def test_who_comes_back_asks_everybody_before_it_is_certain_again() -> None:
    """Its first beat after the absence changes nothing about that."""
    cluster, key = shared("abc")
    cluster.seen.clear()
    cluster.mangle = lambda source, target, message: source == "c"
    stop(cluster, "b", 460)
    cluster.run(300)
    node = cluster.servers["b"].node
    assert not node.has_stopped(cluster.now_ms)
    assert not node.is_sure(key, cluster.now_ms) and not node.is_trusting
    assert {target for _, target, message in cluster.seen if isinstance(message, TombstonesAsked)} == {"a", "c"}
    cluster.run(2_500)
    assert node.is_sure(key, cluster.now_ms) and node.is_trusting


def test_who_has_said_goodbye_is_certain_of_nothing() -> None:
    """The others answer logouts without it."""
    cluster, key = shared()
    cluster.stop("b")
    cluster.run(300)
    node = cluster.servers["b"].node
    assert not node.is_sure(key, cluster.now_ms) and not node.is_trusting
    cluster.run(1_000)
    stop(cluster, "b", 1_000)
    cluster.run(3_000)
    assert not node.is_trusting


def test_who_is_alone_goes_on_after_a_pause() -> None:
    """There is nobody to ask."""
    cluster = Cluster("a")
    stop(cluster, "a", 5_000)
    cluster.run(1)
    node = cluster.servers["a"].node
    assert node.is_trusting and node.is_sure(cluster.first_key("a"), cluster.now_ms)
