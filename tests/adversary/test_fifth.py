from __future__ import annotations
import threading, time, random
import pytest
from sessile.record import ENDED, LIVE, Record
from sessile.backend import Acknowledged
from sessile.ends import Ends, MARGIN_MS
from sessile.table import Table
from sessile.replication.config import ALL_TO_ALL
from sessile.replication.member import Timings
from sessile.errors import SettingsError
from tests.replication.cluster import Cluster, key_number
from tests.replication.engines import Browser, Engines
from tests.adversary.test_breaks import fast, MIN


@pytest.mark.parametrize("timings", [(1, 5, 6), (10, 11, 12), (4, 5, 600), (60_000, 60_001, 60_002), (10, 599_998, 599_999), (250, 251, 3_600_00)])
def test_lease_at_bounds(timings: tuple[int, int, int]) -> None:
    """The lease is over before anybody answers an end without this node, and a beat fits."""
    beat, suspect, dead = timings
    t = Timings(beat_ms=beat, suspect_after_ms=suspect, dead_after_ms=dead, return_ms=min(beat, 250))
    assert 0 < t.beat_every_ms < t.lease_ms < t.suspect_after_ms


@pytest.mark.parametrize("stop_ms", [3, 400, 449, 450, 451, 499, 500, 501, 600, 749, 750, 999, 1000, 1001, 1250, 2000])
@pytest.mark.parametrize("phase", [0, 50, 100, 150, 199])
def test_stops(stop_ms: int, phase: int) -> None:
    """No copy is served without asking after an answered end, whenever the process stops."""
    cluster = Cluster("abc", strategy=ALL_TO_ALL)
    key = key_number(1)
    cluster.create("a", key, user="ann")
    cluster.run(100 + phase)
    b = cluster.servers["b"]
    b.is_stopped = True
    cluster.run(2)
    ticket = cluster.end("a", key)
    bad = []
    for at in range(3_000):
        if at == stop_ms:
            b.is_stopped = False
        # a thread of b may look at any moment, before its loop does
        if not b.is_stopped or at == stop_ms - 1:
            if cluster.answer("a", ticket) is not None and b.node.is_sure(key, cluster.now_ms) and b.table.state(key) == LIVE:
                bad.append(at)
        cluster.run(1)
    assert not bad, bad[:5]


def test_ends_at_bounds() -> None:
    ends = Ends(bytes_max=1)
    for n in range(200_000):
        ends.add(key_number(n), n)
    assert len(ends) <= 64 * 256
    ends = Ends(bytes_max=1)
    for until in (-2**53, 0, 2**53, 2**63):
        ends.add(b"k" * 16, until)
        assert b"k" * 16 in ends
    for _ in range(256):
        ends.sweep(2**40)
    assert b"k" * 16 in ends


def test_threads_on_one_table() -> None:
    """Increments of threads that open and commit while others end and rotate are all kept, or refused."""
    from tests.fakes import make_engine, FakeBrowser
    from sessile.errors import SessionError
    engine = make_engine()
    browser = FakeBrowser(engine)
    s = browser.open(); s["n"] = 0; browser.finish(s)
    header = browser.open().visit.cookie_headers
    done = []
    def work() -> None:
        for _ in range(400):
            s = engine.open(header, is_https=False)
            s.increment("n")
            engine.commit(s)
            done.append(1)
    ts = [threading.Thread(target=work) for _ in range(8)]
    [t.start() for t in ts]; [t.join() for t in ts]
    assert engine.open(header, is_https=False)["n"] == len(done)


@pytest.mark.parametrize("step_ms", range(0, 40, 2))
def test_end_while_one_joins_and_one_leaves(step_ms: int) -> None:
    cluster = Cluster("abc", delay_ms=3, starts=False)
    cluster._addresses = tuple("abcd")
    cluster.run(4_000)
    keys = [key_number(n) for n in range(60)]
    for k in keys:
        cluster.create("a", k, user="ann")
    cluster.run(500)
    cluster.start("d")
    cluster.stop("c")
    cluster.run(step_ms)
    tickets = {k: cluster.end("b", k) for k in keys if cluster.held("b", k) and cluster.held("b", k).state == LIVE}
    bad = []
    for _ in range(4_000):
        cluster.run(1)
        for k, t in tickets.items():
            if cluster.answer("b", t) is Acknowledged.YES:
                for n, s in cluster.servers.items():
                    if s.table.state(k) == LIVE and s.node.is_sure(k, cluster.now_ms):
                        bad.append((n, k))
    assert not bad, bad[:3]


