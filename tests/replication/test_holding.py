"""What a process says of the sessions that it holds, by its node alone."""

from __future__ import annotations

from sessile.replication.holding import Holding
from tests.replication.cluster import Cluster


def holding(cluster: Cluster, name: str) -> Holding:
    """What this server says."""
    it = Holding()
    it.node = cluster.servers[name].node
    return it


def test_roles_are_those_of_placement() -> None:
    """One server is first, another one holds as well, and the third holds nothing."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("b")
    held = {name: holding(cluster, name).holds(key) for name in "abc"}
    assert held["b"] and sum(held.values()) == 2
    assert [name for name in "abc" if holding(cluster, name).is_first_holder(key)] == ["b"]


def test_a_holder_is_sure_of_what_it_hears_of_and_others_are_not() -> None:
    """Who is no holder hears of no change."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(50)
    for name in "abc":
        it = holding(cluster, name)
        assert it.is_sure(key, cluster.now_ms) == it.holds(key) and it.is_trusting()


def test_what_was_written_is_settled_once_it_is_confirmed() -> None:
    """Until the other holder has it, it is neither."""
    cluster = Cluster("ab", copies=2)
    key = cluster.first_key("a")
    it = holding(cluster, "a")
    cluster.create("a", key, x=1)
    assert (it.is_settled(key), it.is_confirmed(key)) == (False, False)
    cluster.run(50)
    assert (it.is_settled(key), it.is_confirmed(key)) == (True, True)


def test_after_a_long_pause_nothing_is_trusted_until_the_others_have_told() -> None:
    """A process that was away may have missed the end of sessions."""
    cluster = Cluster("ab", copies=2)
    cluster.servers["a"].is_stopped = True
    cluster.run(5_000)
    cluster.servers["a"].is_stopped = False
    it = holding(cluster, "a")
    cluster.run(1)
    assert not it.is_trusting()
    cluster.run(1_000)
    assert it.is_trusting()
