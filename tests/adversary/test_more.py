from __future__ import annotations
import pytest
from typing import Any
from sessile.record import ENDED, LIVE, Record
from sessile.errors import SessionError
from sessile.replication.events import SessionTouched, FramesReceived
from sessile.replication.messages import Pull, Members, MemberInfo, Touched, Whole
from sessile.replication.wire import encode
from sessile.replication.config import ALL_TO_ALL
from sessile.backend import Acknowledged
from tests.replication.cluster import Cluster, key_number
from tests.replication.engines import Browser, Engines
from tests.adversary.test_breaks import fast, restart, MIN


@pytest.mark.parametrize("restarts", ["", "a", "ab"])
def test_control_which_restarts_matter(restarts: str) -> None:
    """Only with both restarted the end is gone: the marks (ends.py) are told to no newcomer."""
    cluster = Cluster("abs", strategy=ALL_TO_ALL)
    key = key_number(1)
    cluster.create("s", key, user="ann")
    cluster.run(100)
    cluster.cut("ab", "s")
    cluster.run(3_000)
    ticket = cluster.end("a", key)
    cluster.run(100)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    fast(cluster, 11 * MIN)
    for name in "ab":
        while cluster.servers[name].table.sweep(cluster.now_ms):
            pass
    for name in restarts:
        restart(cluster, name, 2)
    cluster.heal()
    cluster.run(30_000)
    states = {n: s.table.state(key) for n, s in cluster.servers.items()}
    assert LIVE not in states.values(), states


def test_pods_of_other_names() -> None:
    """The others were replaced by servers of other names."""
    cluster = Cluster("abs", strategy=ALL_TO_ALL)
    key = key_number(1)
    cluster.create("s", key, user="ann")
    cluster.run(100)
    cluster.cut("ab", "s"); cluster.cut("cd", "s")
    cluster.run(3_000)
    ticket = cluster.end("a", key)
    cluster.run(100)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    fast(cluster, 11 * MIN)
    for name in "ab":
        while cluster.servers[name].table.sweep(cluster.now_ms):
            pass
    cluster._addresses = tuple("abcds")
    for name in "cd":
        cluster.start(name)
    cluster.run(3_000)
    for name in "ab":
        t = cluster.stop(name)
        cluster.run(2_000)
        assert cluster.answer(name, t) is Acknowledged.YES
        cluster.kill(name)
    cluster.run(3_000)
    cluster.heal()
    cluster.run(30_000)
    states = {n: s.table.state(key) for n, s in cluster.servers.items()}
    assert LIVE not in states.values(), states


def test_crowded_with_a_larger_table() -> None:
    cluster = Cluster("abc", strategy=ALL_TO_ALL)
    for s in cluster.servers.values():
        s.table._bytes_max = 4 * 2**20  # 1 MiB of tombstones: ~3000
    keys = [key_number(n) for n in range(1, 8_000)]
    key, gone = keys[0], keys[1:4000]
    for k in keys:
        cluster.create("a", k, user="x")
        if k[0] < 16: cluster.run(1)
    cluster.run(2_000)
    assert cluster.servers["b"].table.state(key) == LIVE
    cluster.servers["b"].is_stopped = True
    cluster.run(2_000)
    ticket = cluster.end("a", key)
    cluster.run(50)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    for other in gone:
        cluster.end("a", other)
        if other[0] < 64: cluster.run(1)
    cluster.run(500)
    assert cluster.held("a", key) is None and cluster.held("c", key) is None
    cluster.servers["b"].is_stopped = False
    shown = 0
    for _ in range(4_000):
        cluster.run(1)
        b = cluster.servers["b"]
        shown += b.node.is_sure(key, cluster.now_ms) and b.table.state(key) == LIVE
    assert not shown, f"for {shown} ms b serves it without asking"


def test_use_at_a_server_that_holds_no_copy() -> None:
    cluster = Cluster("abc")
    key = next(k for k in map(key_number, range(100)) if cluster.servers["a"].node.placement.holders(k)[:2] in {("a", "b"), ("b", "a")})
    cluster.create("a", key, user="ann")
    cluster.run(20_000)
    cluster.asked("c", key)
    used = cluster.now_ms
    cluster.handle("c", SessionTouched(key, used))
    cluster.run(1)
    cluster.cut("ab", "c")
    cluster.run(3_000)
    cluster.heal()
    cluster.run(60_000)
    touched = {n: cluster.held(n, key).touched_ms - used for n in "ab"}
    assert all(t >= -60 for t in touched.values()), touched


def test_uses_flapping_without_tricks() -> None:
    cluster = Cluster("ab")
    key = key_number(1)
    cluster.create("a", key, user="ann")
    cluster.run(15_000)
    cluster.cut("a", "b")
    cluster.run(3_000)
    cluster.touch("a", key)
    used = cluster.now_ms
    cluster.run(60_000)
    flapped = []

    def mangle(source: str, target: str, message: Any) -> bool:
        if isinstance(message, Touched) and source == "a" and not flapped:
            flapped.append(1)
            cluster.cut("a", "b")
            return True
        return False

    cluster.mangle = mangle
    cluster.heal()
    cluster.run(5_000)
    assert flapped
    cluster.heal()
    cluster.run(90_000)
    late = cluster.held("b", key).touched_ms - used
    assert late >= -60, f"b believes that it was used {-late} ms earlier"


@pytest.mark.parametrize("delay_ms", [1, 5, 20])
def test_two_newcomers_without_a_cut(delay_ms: int) -> None:
    """Discovery names one member; nothing is lost and nobody is cut off."""
    broken = {}
    for offset in range(0, 14 * delay_ms, max(delay_ms // 2, 1)):
        cluster = Cluster("ab", starts=False, delay_ms=delay_ms)
        cluster.run(4_000)
        cluster._addresses = ("a",)
        keys = [key_number(n) for n in range(120)]
        for key in keys:
            cluster.create("a", key, user="ann")
        cluster.run(500)
        cluster.start("c"); cluster.start("d")
        cluster.run(offset)
        tickets = [(k, cluster.end("b", k)) for k in keys if cluster.held("b", k)]
        pulls = []
        for _ in range(20 * delay_ms):
            cluster.run(1)
            if "d" not in cluster.servers: continue
            for k, t in list(tickets):
                if cluster.answer("b", t) is Acknowledged.YES:
                    tickets.remove((k, t))
                    pulls.append((k, cluster.pull("d", k)))
        cluster.run(1_000)
        shown = [k for k, p in pulls if getattr(cluster.answer("d", p), "record", None) is not None and cluster.answer("d", p).record.state == LIVE]
        if shown: broken[offset] = (len(shown), len(pulls))
    assert not broken, broken


@pytest.mark.parametrize("names", ["ab", "abc"])
@pytest.mark.parametrize("sessions", [1, 3000])
def test_one_was_stopped_for_nine_and_a_half_minutes(names: str, sessions: int) -> None:
    cluster = Cluster(names, strategy=ALL_TO_ALL)
    keys = [key_number(n) for n in range(sessions)]
    for k in keys:
        cluster.create("a", k, user="ann")
    key = keys[-1]
    cluster.run(2_000)
    cluster.servers["b"].is_stopped = True
    cluster.run(3_000)
    ticket = cluster.end("a", key)
    cluster.run(50)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    fast(cluster, 9 * MIN + 30_000)
    cluster.servers["b"].is_stopped = False
    shown = 0
    for _ in range(5_000):
        cluster.run(1)
        b = cluster.servers["b"]
        shown += b.node.is_sure(key, cluster.now_ms) and b.table.state(key) == LIVE
    assert not shown, f"for {shown} ms b serves it without asking; a holds {cluster.servers['a'].table.sessions}"


def test_the_look_back_outlives_the_logout() -> None:
    """rotate, then log out under the new id, answered: the old id still shows the user for rotation_grace."""
    cluster = Engines("ab")
    browser = Browser()
    cluster.request("a", browser, user="ann")
    old = Browser(); old.cookies = dict(browser.cookies)
    s = cluster.open("a", browser); s.rotate(); cluster.finish("a", browser, s)
    s = cluster.open("a", browser); s.logout(); cluster.finish("a", browser, s)
    cluster.run(1_000)
    assert dict(cluster.open("b", old)) == {}


def test_tiny_table_tells_of_its_ends() -> None:
    """bytes_max may be as small as session_bytes_max: a logout that nobody was told of is answered."""
    cluster = Cluster("ab", strategy=ALL_TO_ALL)
    key = key_number(1)
    cluster.create("a", key, user="ann")
    cluster.run(100)
    for s in cluster.servers.values():
        s.table._bytes_max = 1024
    ticket = cluster.end("a", key)
    cluster.run(50)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    assert cluster.servers["b"].table.state(key) != LIVE


def test_tiny_table_does_not_raise() -> None:
    """E16: nothing that a peer sends makes `handle` raise."""
    cluster = Cluster("abc", strategy=ALL_TO_ALL)
    mine = [key_number(n) for n in range(1, 52)]
    theirs = key_number(0)
    for k in [*mine, theirs]:
        cluster.create("a", k, user="ann")
    cluster.run(500)
    cluster.servers["a"].table._bytes_max = 64 * 2**10
    cluster.servers["b"].is_stopped = True
    cluster.write("c", theirs, n=1)
    for k in mine:
        cluster.end("a", k)
    cluster.mangle = lambda s, t, m: False
    cluster.end("c", theirs)
    cluster.run(50)


def test_incarnation_at_its_bound() -> None:
    cluster = Cluster("abc")
    link, = [l for l, (o, _) in cluster.servers["a"].links.items() if o == "b"]
    cluster.handle("a", FramesReceived(link, (encode(Members((MemberInfo("c", "host-c", 2**53 - 1),)))[3:],)))
    cluster.run(1_000)
    cluster.close("a", "c")
    cluster.run(5_000)
    assert "c" in cluster.servers["a"].node.membership.linked()
