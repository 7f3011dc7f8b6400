"""Each test states the promise; it fails where the promise is broken."""
from __future__ import annotations
import pytest
from typing import Any
from sessile.record import ENDED, LIVE, Record
from sessile.replication.events import SessionTouched, FramesReceived
from sessile.replication.messages import Pull, Members, MemberInfo, Touched, Whole
from sessile.replication.wire import encode, HELLO_BYTES_MAX
from sessile.replication.config import ALL_TO_ALL
from sessile.table import Table
from sessile.backend import Acknowledged
from tests.replication.cluster import Cluster, key_number, fields_of
from tests.replication.engines import Browser, Engines

MIN = 60_000


def restart(cluster: Cluster, name: str, incarnation: int) -> None:
    """In good order: leaves, hands over, is started anew."""
    ticket = cluster.stop(name)
    for _ in range(12_000):
        if cluster.answer(name, ticket) is not None:
            break
        cluster.run(1)
    assert cluster.answer(name, ticket) is Acknowledged.YES
    cluster.run(20)
    cluster.kill(name)
    cluster.run(100)
    cluster.start(name, incarnation=incarnation)
    cluster.run(3_000)


@pytest.mark.parametrize("how", ["stopped", "cut"])
@pytest.mark.parametrize("away_min", [11, 30])
def test_all_others_restarted_while_one_was_away(how: str, away_min: int) -> None:
    """B: an end outlives every copy; C: a process that was stopped never shows an ended session."""
    cluster = Cluster("abs", strategy=ALL_TO_ALL)
    key = key_number(1)
    cluster.create("s", key, user="ann")
    cluster.run(100)
    if how == "stopped":
        cluster.servers["s"].is_stopped = True
    else:
        cluster.cut("ab", "s")
    cluster.run(3_000)
    ticket = cluster.end("a", key)
    cluster.run(100)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    for name in "ab":
        cluster.servers[name].table.sweep(cluster.now_ms)
    fast(cluster, away_min * MIN)
    for name in "ab":
        while cluster.servers[name].table.sweep(cluster.now_ms):
            pass
    assert cluster.held("a", key) is None and key in cluster.servers["a"].table.ends
    restart(cluster, "a", 2)
    restart(cluster, "b", 2)
    cluster.heal()
    cluster.servers["s"].is_stopped = False
    cluster.run(30_000)
    assert {n: s.node.membership.linked() for n, s in cluster.servers.items()}
    states = {n: s.table.state(key) for n, s in cluster.servers.items()}
    assert LIVE not in states.values(), (states, cluster.values(key))




def fast(cluster: Cluster, ms: int) -> None:
    """Let time pass in steps of whoever wants to be woken."""
    until = cluster.now_ms + ms
    while cluster.now_ms < until:
        cluster.run(1)
        times = [s.node.next_wakeup(cluster.now_ms) for s in cluster.servers.values() if not s.is_stopped]
        times += [at for at, _, name, link, _ in cluster._queue
                  if name in cluster.servers and link in cluster.servers[name].links
                  and not cluster.servers[name].is_stopped
                  and frozenset((name, cluster.servers[name].links[link][0])) not in cluster.cuts]
        nxt = min([t for t in times if t is not None], default=until)
        cluster.now_ms = max(cluster.now_ms, min(nxt - 1, until))


def test_an_empty_key_is_asked_for() -> None:
    """node.py: nothing that a peer sends makes it raise."""
    cluster = Cluster("ab")
    link = next(iter(cluster.servers["a"].links))
    cluster.handle("a", FramesReceived(link, (encode(Pull(1, b"", (), None))[3:],)))


def test_first_touch_of_an_open_request_after_tombstone_keep() -> None:
    """B7: a request that was open for hours shows no ended session."""
    cluster = Engines("ab")
    browser = Browser()
    cluster.request("a", browser, user="ann")
    websocket = cluster.engines["b"].open((browser.header,), is_https=False)
    cluster.wait("b", cluster.engines["b"].prepare(websocket))
    session = cluster.open("a", browser)
    session.logout()
    cluster.finish("a", browser, session)
    fast(cluster, 11 * MIN)
    for engine in cluster.engines.values():
        while engine.sweep():
            pass
    assert dict(websocket) == {}


def test_crowded_tombstones_and_a_short_stop() -> None:
    """B5/C9: b is stopped for 5 s; the end of ann's session became a mere key meanwhile; b shows it when it is back."""
    cluster = Cluster("abc", strategy=ALL_TO_ALL)
    for s in cluster.servers.values():
        s.table._bytes_max = 256 * 2**10  # 64 KiB of tombstones: about 190 of them; 256 MiB: 200 000
    key = key_number(1)
    cluster.create("a", key, user="ann")
    others = [key_number(n) for n in range(2, 400)]
    for other in others:
        cluster.create("a", other, user="x")
    for other in others:
        pass
    cluster.run(300)
    cluster.servers["b"].is_stopped = True
    cluster.run(3_000)
    ticket = cluster.end("a", key)
    cluster.run(50)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    for other in others:
        cluster.end("a", other)
        cluster.run(5)
    assert cluster.held("a", key) is None and cluster.held("c", key) is None
    cluster.servers["b"].is_stopped = False
    shown = 0
    for _ in range(5_000):
        cluster.run(1)
        b = cluster.servers["b"]
        shown += b.node.is_sure(key, cluster.now_ms) and b.table.state(key) == LIVE
    assert not shown, f"for {shown} ms b serves it without asking"


def test_use_at_a_server_that_holds_no_copy() -> None:
    """D14: uses are not lost."""
    cluster = Cluster("abc")
    key = next(k for k in map(key_number, range(100)) if cluster.servers["a"].node.placement.holders(k)[:2] in {("a", "b"), ("b", "a")})
    cluster.create("a", key, user="ann")
    cluster.run(3_000)
    cluster.run(20_000)
    cluster.asked("c", key)
    used = cluster.now_ms
    cluster.handle("c", SessionTouched(key, used))
    cluster.run(1)
    cluster.close("a", "c"); cluster.close("b", "c")
    cluster.run(60_000)
    touched = {n: cluster.held(n, key).touched_ms - used for n in "ab"}
    assert all(t >= -60 for t in touched.values()), touched


def test_uses_told_over_a_link_that_is_lost_again() -> None:
    """D14: uses are not lost: a network that flaps at the end of an outage."""
    cluster = Cluster("ab")
    key = key_number(1)
    cluster.create("a", key, user="ann")
    cluster.run(15_000)
    cluster.cut("a", "b")
    cluster.run(3_000)
    cluster.touch("a", key)
    used = cluster.now_ms
    cluster.run(60_000)
    cluster.heal()
    lost = []

    def mangle(source: str, target: str, message: Any) -> bool:
        if isinstance(message, Touched) and source == "a" and not lost:
            lost.append(1)
            cluster.cut("a", "b")  # from here on nothing arrives
            return True
        return False

    cluster.mangle = mangle
    cluster.run(5_000)
    assert lost
    cluster._queue.clear()
    for s in cluster.servers.values():
        for link in list(s.links):
            pass
    cluster.heal()
    cluster.run(90_000)
    late = cluster.held("b", key).touched_ms - used
    assert late >= -60, f"b believes that it was used {-late} ms earlier"


def test_two_newcomers() -> None:
    """A newcomer serves nothing that ended: it asks another newcomer."""
    cluster = Cluster("ab", starts=False)
    cluster.run(3_000)
    cluster._addresses = tuple("abcd")
    keys = [key_number(n) for n in range(300)]
    for key in keys:
        cluster.create("a", key, user="ann")
    cluster.run(500)
    cluster.cut("b", "cd")  # connecting takes them a while
    cluster.start("c")
    cluster.start("d")
    cluster.run(300)
    good = [k for k in keys if cluster.servers["d"].node.placement.holders(k) and cluster.servers["d"].node.placement.others(k)[:1] == ("c",)]
    tickets = [cluster.end("b", k) for k in good]
    cluster.run(20)
    shown = 0
    answered = 0
    for k, t in zip(good, tickets):
        if cluster.answer("b", t) is Acknowledged.YES:
            answered += 1
            pulled = cluster.asked("d", k)
            shown += pulled.record is not None and pulled.record.state == LIVE
    assert answered
    assert not shown, (shown, answered, len(good))


def test_greeting_of_the_longest_list_is_taken() -> None:
    """wire.py: a list of as many members as there may be fits."""
    cluster = Cluster("abc")
    link, = [l for l, (o, _) in cluster.servers["a"].links.items() if o == "b"]
    infos = tuple(MemberInfo(f"{n:04}" + "x" * 290, "h" * 300, 1, 0, "s" * 300) for n in range(1_100))
    cluster.handle("a", FramesReceived(link, (encode(Members(infos))[3:],)))
    cluster.run(3_000)
    cluster.close("a", "b")
    cluster.run(5_000)
    assert "b" in cluster.servers["a"].node.membership.linked()


def test_a_rotation_and_a_logout() -> None:
    """The logout was answered while the rotation waited; the new id shows the user."""
    cluster = Engines("ab")
    browser, other = Browser(), Browser()
    cluster.request("a", browser, user="ann")
    other.cookies = dict(browser.cookies)
    turning = cluster.open("a", browser)
    turning["n"] = 1
    turning.rotate()
    steps = cluster.engines["a"].commit(turning)
    settle = cluster.engines["a"].settle(steps)
    ticket = settle.send(None)  # the new record is pushed
    session = cluster.open("b", other)
    session.logout()
    cluster.finish("b", other, session)
    # answered; now the rotation goes on
    answer = None
    try:
        while True:
            while (answer := cluster.answer("a", ticket.number)) is None:
                cluster.run(1)
            ticket = settle.send(answer)
    except StopIteration:
        pass
    except Exception as e:
        return
    browser.keep(cluster.engines["a"].cookies(turning))
    assert cluster.request("b", browser) == {}


def test_a_new_session_of_a_server_that_started_over() -> None:
    """A late write to a session that lives is not refused."""
    from tests.fakes import make_pair, FakeBrowser
    import asyncio
    pair = make_pair()
    backend, engine = pair
    engine.draw_writer()
    session = engine.open((), is_https=False)
    asyncio.run(engine.prepare(session))
    session["a"] = 1
    asyncio.run(engine.settle(engine.commit(session)))
    engine.cookies(session)
    engine.table.drop(session.opened.key)  # others hold it
    session["b"] = 2
    asyncio.run(engine.settle(engine.commit(session, is_late=True)))


def test_deadline_never_moves() -> None:
    """design/0011: the deadline is part of its birth and never moves."""
    cluster = Cluster("abc", strategy=ALL_TO_ALL)
    key = key_number(1)
    cluster.servers["b"].is_stopped = True
    cluster.create("a", key, user="ann")
    fast(cluster, 8 * MIN)
    cluster.servers["b"].is_stopped = False
    fast(cluster, 60_000)
    real = cluster.held("a", key).deadline_ms
    assert {n: cluster.held(n, key).deadline_ms - real for n in "bc"} == {"b": pytest.approx(0, abs=5000), "c": pytest.approx(0, abs=5000)}


def test_two_of_which_one_was_stopped() -> None:
    cluster = Cluster("ab", strategy=ALL_TO_ALL)
    key = key_number(1)
    cluster.create("a", key, user="ann")
    cluster.run(100)
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
    assert not shown, f"for {shown} ms b serves it without asking"
