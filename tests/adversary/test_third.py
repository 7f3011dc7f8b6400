from __future__ import annotations
import itertools, random
import pytest
from typing import Any
from sessile.record import ENDED, LIVE, Record, Stamp
from sessile.backend import Acknowledged, Ended, Whole as Born
from sessile.replication import messages as m
from sessile.replication.events import FramesReceived, LinkDown
from sessile.replication.messages import MemberInfo
from sessile.replication.wire import encode
from sessile.replication.config import ALL_TO_ALL
from tests.replication.cluster import Cluster, key_number
from tests.replication.engines import Browser, Engines
from tests.adversary.test_breaks import fast, restart, MIN


@pytest.mark.parametrize("crash", [False, True])
def test_two_servers_one_restart(crash: bool) -> None:
    cluster = Cluster("as", strategy=ALL_TO_ALL)
    key = key_number(1)
    cluster.create("s", key, user="ann")
    cluster.run(100)
    cluster.servers["s"].is_stopped = True
    cluster.run(3_000)
    ticket = cluster.end("a", key)
    cluster.run(100)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    fast(cluster, 11 * MIN)
    while cluster.servers["a"].table.sweep(cluster.now_ms):
        pass
    if crash:
        cluster.kill("a"); cluster.start("a", incarnation=2); cluster.run(3_000)
    else:
        restart(cluster, "a", 2)
    cluster.servers["s"].is_stopped = False
    cluster.run(30_000)
    assert LIVE not in {s.table.state(key) for s in cluster.servers.values()}


def test_ack_none_and_an_end() -> None:
    """GUARANTEES, under every strategy: when a logout is answered, every server that can be reached knows of it."""
    cluster = Cluster("ab", delay_ms=20)
    key = key_number(1)
    cluster.create("a", key, ack="none", user="ann")
    cluster.run(500)
    ended = cluster.held("a", key).end(ENDED, cluster.now_ms)
    cluster.servers["a"].table.put(key, ended)
    ticket = cluster.push("a", key, Ended(key, ended), "none")
    cluster.run(1)
    if cluster.answer("a", ticket) is Acknowledged.YES:
        b = cluster.servers["b"]
        assert not (b.table.state(key) == LIVE and b.node.is_sure(key, cluster.now_ms))


@pytest.mark.parametrize("ack", ["one", "all"])
@pytest.mark.parametrize("case", ["all full", "one full one stopped", "full and leaving", "full, link flaps"])
@pytest.mark.parametrize("strategy", ["primary-backup", ALL_TO_ALL])
def test_all_refused(ack: str, case: str, strategy: str) -> None:
    cluster = Cluster("abc", strategy=strategy, ack_timeout_ms=10_000)
    for name in "bc":
        cluster.servers[name].table._sessions_max = 0
    if case == "one full one stopped":
        cluster.servers["c"].is_stopped = True
    if case == "full and leaving":
        cluster.stop("c")
    key = cluster.first_key("a")
    ticket = cluster.create("a", key, ack=ack, user="ann")
    if case == "full, link flaps":
        cluster.close("a", "b")
    for waited in range(10_100):
        if cluster.answer("a", ticket) is not None:
            break
        cluster.run(1)
    assert waited < 1_500, waited


KEYS = [b"", b"x", b"k" * 16, b"k" * 15, b"z" * 1000]
INTS = [0, 1, -1, 2**53, -2**63, 2**63, 2**64 - 1]
rec = Record.create(now_ms=0, idle_ms=1, deadline_ms=5).write(3, {"a": b"\x01"}, now_ms=0)[0]
DATA = [b"", b"\x90", rec.pack(), rec.end(ENDED, 1).pack(), rec.end(1, 1).pack(), rec.pack()[:-1],
        Record.create(now_ms=2**53, idle_ms=2**53, deadline_ms=2**53).pack(), Record.create(now_ms=-2**53, idle_ms=-2**53, deadline_ms=-2**53).pack()]


def shots() -> Any:
    for key in KEYS:
        for i in INTS:
            yield m.Pull(i, key, (), None)
            yield m.Pull(i, key, (Stamp(i, i),), {i: i})
            yield m.Denied(i, key, 0)
            yield m.Denied(1, key, i)
            yield m.Touched(((key, i),))
            yield m.Changed(key, i, i, i, {"a": b""})
            yield m.Changed(key, 5, 3, i, {"a": b"\xff"}, {"b": (i, i, i)})
            yield m.Changed(key, 2, 3, (Stamp(1, 3),), {}, {"": (1, 3, i)})
            for data in DATA:
                yield m.Whole(i, ((key, data),))
                yield m.Told(i, ((key, data),))
                yield m.TombstonesTold(i, ((key, data),), True, i)
                yield m.Answered(1, i, i, data)
        yield m.Offered(1, key); yield m.Wanted(1, key); yield m.Digest(key); yield m.Differ(key)
        yield m.Listed(True, key, key); yield m.Listed(False, key, key)
    for i in INTS:
        yield m.Acked(i); yield m.Writing(i); yield m.Beat(i); yield m.TombstonesAsked(i, i)
        for name in ("", "a", "b", "q", "q:1", "x" * 400):
            for stage in INTS:
                yield m.Members((MemberInfo(name, "h", i, stage),))
    yield m.Whole(0, ()); yield m.Told(0, ()); yield m.Members(())


def test_shots() -> None:
    """node.py: nothing that a peer sends makes it raise."""
    bad: dict[str, str] = {}
    cluster = Cluster("ab", directory=True)
    n = 0
    for shot in shots():
        try:
            frame = encode(shot)[3:]
        except OverflowError:
            continue
        links = cluster.servers["a"].links
        if not links or "b" not in cluster.servers["a"].node.peers:
            cluster = Cluster("ab", directory=True)
            cluster.create("a", b"k" * 16, user="x")
            cluster.pull("a", b"j" * 16)
            links = cluster.servers["a"].links
        n += 1
        try:
            cluster.handle("a", FramesReceived(next(iter(links)), (frame,)))
            cluster.run(2)
        except Exception as e:
            import traceback
            tb = traceback.extract_tb(e.__traceback__)[-1]
            bad.setdefault(f"{type(shot).__name__} {type(e).__name__} {tb.filename.split('/')[-1]}:{tb.lineno}", repr(shot)[:150])
            cluster = Cluster("ab", directory=True)
    print(n)
    assert not bad, "\n".join(f"{k}: {v}" for k, v in bad.items())
