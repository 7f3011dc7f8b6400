"""Ends that were made while members were apart for longer than tombstones are kept: they arrive when the members meet again."""

from __future__ import annotations

import pytest

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
