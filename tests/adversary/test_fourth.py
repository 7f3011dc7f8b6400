from __future__ import annotations
import time
import pytest
from sessile.record import ENDED, LIVE, Record
from sessile.backend import Acknowledged
from sessile.replication.config import ALL_TO_ALL
from tests.replication.cluster import Cluster, key_number
from tests.replication.engines import Browser, Engines
from tests.adversary.test_breaks import fast, restart, MIN


def test_the_browser_sees_it_again() -> None:
    """Two servers with engines: logged out at a while s was stopped for 11 minutes; a was restarted (a deploy); s goes on."""
    cluster = Engines("as", strategy=ALL_TO_ALL)
    browser = Browser()
    cluster.request("s", browser, user="ann")
    old = Browser(); old.cookies = dict(browser.cookies)
    cluster.run(100)
    cluster.servers["s"].is_stopped = True
    cluster.run(3_000)
    session = cluster.open("a", browser)
    session.logout()
    cluster.finish("a", browser, session)
    fast(cluster, 11 * MIN)
    while cluster.engines["a"].sweep():
        pass
    assert dict(cluster.open("a", old)) == {}
    restart(cluster, "a", 2)
    cluster.servers["s"].is_stopped = False
    cluster.run(10_000)
    assert (dict(cluster.open("s", old)), dict(cluster.open("a", old))) == ({}, {})


def test_a_hot_session_that_all_others_refuse() -> None:
    """E16, limits: one session never costs the others: what is open is bounded by session, not by write."""
    cluster = Cluster("abc")
    key, other = cluster.first_key("a"), cluster.first_key("a", start=5_000)
    cluster.create("a", other, user="bob")
    cluster.run(100)
    for name in "bc":
        cluster.servers[name].table._sessions_max = 0
    cluster.create("a", key, user="ann")
    cluster.run(100)
    times = {}
    for n in range(6_001):
        began = time.process_time()
        cluster.write("a", key, n=n)
        took = time.process_time() - began
        cluster.run(3)
        if n in {100, 1000, 3000, 6000}:
            times[n] = round(took * 1e3, 2)
    opened = cluster.servers["a"].node.waiting["pushes"]
    began = time.process_time()
    cluster.close("a", "b")
    cluster.run(500)
    view = time.process_time() - began
    assert opened < 100, (opened, times, view)


def test_leaving_where_one_is_full() -> None:
    cluster = Cluster("abc")
    for n in range(50):
        cluster.create("a", key_number(n), user="ann")
    cluster.run(500)
    cluster.servers["b"].table._sessions_max = 0
    began = cluster.now_ms
    ticket = cluster.stop("a")
    while cluster.answer("a", ticket) is None:
        cluster.run(1)
    assert cluster.now_ms - began < 3_000, (cluster.now_ms - began, cluster.answer("a", ticket))


def test_a_rotation_in_a_request_of_an_ended_session() -> None:
    """For the mutant of `_current` that survives: a long request whose session ended long ago rotates."""
    from sessile.errors import SessionEnded
    cluster = Engines("ab")
    browser = Browser()
    cluster.request("a", browser, user="ann")
    long = cluster.open("a", browser)
    assert dict(long) == {"user": "ann"}
    session = cluster.open("b", browser)
    session.logout()
    cluster.finish("b", browser, session)
    fast(cluster, 11 * MIN)
    for engine in cluster.engines.values():
        while engine.sweep():
            pass
    long.rotate()
    with pytest.raises(SessionEnded):
        cluster.engines["a"].commit(long)
