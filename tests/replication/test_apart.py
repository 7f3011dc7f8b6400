"""Ends that were made while members were apart for longer than tombstones are kept: they arrive when the members meet again."""

from __future__ import annotations

import pytest

from sessile.backend import Acknowledged
from sessile.record import ENDED, LIVE
from tests.replication.cluster import Cluster

KEEP_MS = 3_000


def sweep(cluster: Cluster) -> None:
    for server in cluster.servers.values():
        while server.table.sweep(cluster.now_ms):
            pass


def run(cluster: Cluster, ms: int) -> None:
    """Let time pass, with the sweeps that every engine makes."""
    for _ in range(0, ms, 500):
        cluster.run(500)
        sweep(cluster)


@pytest.mark.parametrize("strategy", ["all-to-all", "primary-backup"])
@pytest.mark.parametrize("at", ["a", "b"])
@pytest.mark.parametrize("apart_ms", [2_000, 6_000])
def test_an_end_of_either_side_arrives(strategy: str, at: str, apart_ms: int) -> None:
    """The smaller side starts over after a long time: what ended there has ended all the same."""
    cluster = Cluster("abc", strategy=strategy, tombstone_keep_ms=KEEP_MS)
    drawn = (cluster.first_key("b", start=1_000 * number) for number in range(20))
    placement = cluster.servers["b"].node.placement
    keys = [key for key in drawn if strategy == "all-to-all" or "a" not in placement.others(key)][:3]
    for key in keys:
        cluster.create("b", key, x=1)
    run(cluster, 1_000)
    cluster.cut("a", "bc")
    run(cluster, 1_500)
    held = cluster.held("b", keys[0])
    assert held is not None
    if cluster.held(at, keys[0]) is None:  # a server that is no holder opened it before the cut
        cluster.servers[at].table.put(keys[0], held)
    cluster.end(at, keys[0])
    run(cluster, apart_ms)
    cluster.heal()
    run(cluster, 6_000)
    for name, server in cluster.servers.items():
        assert server.table.state(keys[0]) != LIVE, name
    assert all(any(s.table.state(key) == LIVE for s in cluster.servers.values()) for key in keys[1:])


def test_tombstones_are_kept_while_a_member_is_out_of_reach_and_no_longer() -> None:
    """Then each is forgotten when its time is over, as always."""
    cluster = Cluster("ab", tombstone_keep_ms=KEEP_MS)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    run(cluster, 1_000)
    cluster.cut("a", "b")
    cluster.end("a", key)
    run(cluster, 3 * KEEP_MS)
    assert cluster.servers["a"].table.state(key) == ENDED
    cluster.heal()
    run(cluster, 6_000)
    run(cluster, 2 * KEEP_MS)
    for server in cluster.servers.values():
        assert server.table.state(key) is None and server.table.has_ended(key)


def restart(cluster: Cluster, name: str, *, as_name: str = "") -> None:
    """A process is killed and another one started, maybe under another name, as a pod is replaced."""
    cluster.kill(name)
    cluster.run(1_500)
    cluster.start(as_name or name, incarnation=2)
    run(cluster, 3_000)


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("others", [("a", "b"), ("c", "d")])
def test_newcomers_learn_of_ends_that_have_no_tombstone_any_more(is_cut: bool, others: tuple[str, str]) -> None:  # noqa: FBT001
    """All others are restarted, or replaced, one by one while one server is away: what ended before has ended all the same."""
    cluster = Cluster("abs", strategy="all-to-all", tombstone_keep_ms=KEEP_MS)
    key = cluster.first_key("a")
    cluster.create("s", key, x=1)
    run(cluster, 1_000)
    if is_cut:
        cluster.cut("abcd", "s")
    cluster.servers["s"].is_stopped = not is_cut
    run(cluster, 2_000)
    ticket = cluster.end("a", key)
    run(cluster, 1_000)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    for name in "ab":
        cluster.servers[name].table.drop(key)
        assert cluster.servers[name].table.state(key) is None and cluster.servers[name].table.has_ended(key)
    cluster._addresses = tuple(sorted({"s", *others, "a", "b"}))
    for old, new in zip("ab", others, strict=True):
        restart(cluster, old, as_name=new)
    assert all(cluster.servers[name].table.has_ended(key) for name in others)
    cluster.heal()
    cluster.servers["s"].is_stopped = False
    run(cluster, 8_000)
    assert all(server.table.state(key) != LIVE for server in cluster.servers.values())


def test_an_end_that_was_crowded_out_is_told_after_a_short_stop() -> None:
    """Very many ends leave no room for its tombstone: whoever was stopped for a moment learns of it before it is sure again."""
    cluster = Cluster("ab", strategy="all-to-all")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(100)
    away = cluster.servers["b"]
    away.is_stopped = True
    cluster.run(2_000)
    cluster.end("a", key)
    cluster.run(100)
    cluster.servers["a"].table.drop(key)
    away.is_stopped = False
    for _ in range(3_000):
        cluster.run(1)
        assert away.table.state(key) != LIVE or not away.node.is_sure(key, cluster.now_ms)
    assert away.table.has_ended(key) and away.node.is_trusting


def test_a_session_that_everybody_refuses_costs_one_change_in_waiting() -> None:
    """However often it is written to."""
    cluster = Cluster("abc", strategy="all-to-all")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(100)
    for name in "bc":
        cluster.servers[name].table._bytes_max = 0
    for number in range(50):
        cluster.write("a", key, x="x" * (number + 10))
        cluster.run(10)
    assert cluster.servers["a"].node.waiting["pushes"] <= 2
