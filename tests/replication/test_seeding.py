"""A newcomer gets its share at once, each session from one node, and what went wrong repair mends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessile.record import ENDED
from sessile.replication import repair, seeding
from sessile.replication.config import ALL_TO_ALL, PRIMARY_BACKUP
from sessile.replication.messages import Differ, Digest, Whole
from tests.replication.test_repair import filled

if TYPE_CHECKING:
    from tests.replication.cluster import Cluster


def sent_to(cluster: Cluster, name: str) -> list[bytes]:
    """The keys of all records that came to this node, as often as they came."""
    return [
        key
        for source in cluster.servers
        for message in cluster.messages(Whole, source, name)
        for key, _ in message.items
    ]


def share(cluster: Cluster, name: str, keys: list[bytes]) -> list[bytes]:
    placement = cluster.servers[name].node.placement
    return [key for key in keys if placement.is_holder(key)]


def join(cluster: Cluster, names: str, name: str) -> None:
    cluster._addresses = tuple(names)
    cluster.start(name)


@pytest.mark.parametrize("strategy", [ALL_TO_ALL, PRIMARY_BACKUP])
def test_a_newcomer_gets_each_session_once(strategy: str) -> None:
    """From its first holder of before, without a word about what differs; soon, and from all at the same time."""
    cluster, keys = filled("abc", 900, strategy=strategy)
    cluster.run(3_000)
    cluster.seen.clear()
    join(cluster, "abcd", "d")
    cluster.run(60)
    assert sorted(sent_to(cluster, "d")) == sorted(share(cluster, "d", keys))
    assert len(share(cluster, "d", keys)) > 300
    assert not [message for name in "abc" for message in cluster.messages(Differ, name, "d")]
    senders = {name for name in "abc" if list(cluster.messages(Whole, name, "d"))}
    assert senders == set("abc")
    assert {name: server.node.counts["seeded"] for name, server in cluster.servers.items()} == {
        "a": 1,
        "b": 1,
        "c": 1,
        "d": 0,
    }
    cluster.run(5_000)
    assert sorted(set(sent_to(cluster, "d"))) == sorted(share(cluster, "d", keys)), "repair finds nothing to mend"


def test_who_is_compared_with_afterwards_has_all() -> None:
    """When everything was sent, a pass compares; what had no room or was lost meanwhile comes then."""
    cluster, keys = filled("ab", 300, strategy=ALL_TO_ALL)
    cluster.run(3_000)
    lost = iter([True])
    cluster.mangle = lambda source, target, message: (
        source == "a" and target == "c" and isinstance(message, Whole) and next(lost, False)
    )
    join(cluster, "abc", "c")
    cluster.run(14_000)
    assert all(cluster.held("c", key) is not None for key in keys)


def test_a_newcomer_s_link_that_breaks_is_no_harm() -> None:
    """The walk ends with the link; the next one compares."""
    cluster, keys = filled("ab", 2_000, strategy=ALL_TO_ALL)
    cluster.run(3_000)
    join(cluster, "abc", "c")
    cluster.run(4)
    assert len(cluster.servers["a"].node._repair._seeding) == 1
    cluster.close("a", "c")
    assert len(cluster.servers["a"].node._repair._seeding) == 0
    cluster.run(10_002)
    assert all(not server.node._repair._seeding for server in cluster.servers.values())
    assert all(cluster.held("c", key) is not None for key in keys)


def test_two_newcomers_at_once() -> None:
    """None of them is expected to have anything to send."""
    cluster, keys = filled("ab", 300, strategy=ALL_TO_ALL)
    cluster.run(3_000)
    cluster._addresses = tuple("abcd")
    cluster.start("c")
    cluster.start("d")
    cluster.run(3_000)
    assert all(cluster.held(name, key) is not None for name in "cd" for key in keys)
    for name in "cd":
        came = sent_to(cluster, name)
        assert len(came) < 1.2 * len(set(came))


def test_ended_sessions_are_not_seeded() -> None:
    """That they have ended a newcomer hears when it greets."""
    cluster, keys = filled("ab", 20, strategy=ALL_TO_ALL)
    for key in keys[:10]:
        cluster.end("a", key)
    cluster.run(3_000)
    cluster.seen.clear()
    join(cluster, "abc", "c")
    cluster.run(60)
    assert sorted(sent_to(cluster, "c")) == sorted(keys[10:])
    assert [cluster.servers["c"].table.state(key) for key in keys[:10]] == [ENDED] * 10


def test_who_comes_back_is_no_newcomer() -> None:
    """A link that broke soon after a start: what came before it did is there still."""
    cluster, _ = filled("ab", 50, strategy=ALL_TO_ALL)
    cluster.close("a", "b")
    cluster.run(300)
    assert [server.node.counts["seeded"] for server in cluster.servers.values()] == [0, 0]


def test_a_newcomer_that_takes_long_is_not_compared_with_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is looked for than can be sent soon; a pass that cannot be put off any longer leaves it out."""
    monkeypatch.setattr(seeding, "AHEAD", 10)
    monkeypatch.setattr(seeding, "SEED_KEYS", 50)
    monkeypatch.setattr(repair, "BATCH_BYTES", 100)
    cluster, keys = filled("ab", 600, strategy=ALL_TO_ALL, repair_window_bytes=300, repair_every_ms=1_000_000)
    cluster.run(3_000)
    cluster.delay_ms = 60
    cluster.seen.clear()
    join(cluster, "abc", "c")
    cluster.run(4_500)
    node = cluster.servers["a"].node
    assert "c" in node._repair._seeding and len(node.peers["c"].repairing) < 10 + 50
    assert not [message for name in "ab" for message in cluster.messages(Digest, name, "c")]
    cluster.run(20_000)
    assert all(cluster.held("c", key) is not None for key in keys)
    assert all(list(cluster.messages(Digest, name, "c")) for name in "ab"), "once it has its share, it is compared with"
