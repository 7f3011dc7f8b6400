"""Every node knows the keys of all sessions, whoever holds them."""

from __future__ import annotations

from typing import Any

import pytest

from sessile.errors import WireError
from sessile.record import LIVE
from sessile.replication.messages import Listed
from tests.replication.cluster import Cluster, key_number


def listed(cluster: Cluster) -> dict[str, set[bytes]]:
    return {name: set(server.node.directory) for name, server in cluster.servers.items()}


def filled(names: str = "abc", count: int = 12, **config: Any) -> tuple[Cluster, set[bytes]]:
    cluster = Cluster(names, copies=2, directory=True, **config)
    keys = {key_number(number) for number in range(count)}
    for key in sorted(keys):
        cluster.create(cluster.servers["a"].node.placement.order(key)[0], key, x=1)
    cluster.run(150)
    return cluster, keys


def test_every_node_knows_every_key() -> None:
    """Holders or not; a key is listed once, by its first holder."""
    cluster, keys = filled()
    assert listed(cluster) == dict.fromkeys("abc", keys)
    directory = cluster.servers["c"].node.directory
    assert len(directory) == len(keys) and all(key in directory for key in keys)
    assert key_number(999) not in directory


def test_without_it_nothing_is_listed() -> None:
    """The strategy alone does not need it."""
    cluster = Cluster("ab", copies=2)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(200)
    assert listed(cluster) == {"a": set(), "b": set()}
    assert not list(cluster.messages(Listed))


def test_ends_and_expiry_take_keys_out() -> None:
    """Ended by a handler, or dropped by the table without a word."""
    cluster, keys = filled()
    gone, dropped, *_ = sorted(keys)
    cluster.end(cluster.servers["a"].node.placement.order(gone)[0], gone)
    for server in cluster.servers.values():
        server.table.drop(dropped)
    cluster.run(300)
    assert listed(cluster) == dict.fromkeys("abc", keys - {gone, dropped})


def test_who_takes_over_lists() -> None:
    """A server dies and comes back: the directory is true again each time."""
    cluster, keys = filled()
    cluster.kill("b")
    cluster.run(2_500)
    assert listed(cluster) == dict.fromkeys("ac", keys)
    cluster.start("b", incarnation=2)
    cluster.run(3_000)
    assert listed(cluster) == dict.fromkeys("abc", keys)
    assert cluster.servers["a"].table.state(min(keys)) in {LIVE, None}


def test_what_comes_and_goes_between_two_messages_is_told_as_it_is_then() -> None:
    """Not both: in a long list, cut in pieces, the two could come in the wrong order."""
    cluster, keys = filled()
    here = [key for key in sorted(keys) if cluster.servers["a"].node.placement.is_first(key)]
    server, back, fleeting = cluster.servers["a"], here[0], cluster.first_key("a", start=500)
    record = cluster.held("a", back)
    assert record is not None
    cluster.seen.clear()
    cluster.create("a", fleeting, x=1)
    for key in (fleeting, back):
        server.table.drop(key)
        server.node.directory.look(key)
    server.table.put(back, record)
    server.node.directory.look(back)
    cluster.run(300)
    told = list(cluster.messages(Listed, "a"))
    assert told and not any(fleeting in message.came or back in message.went for message in told)
    assert back in cluster.servers["b"].node.directory


def test_long_lists_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first piece begins the list anew, the others add to it."""
    monkeypatch.setattr("sessile.replication.directory.LISTED_KEYS", 2)
    monkeypatch.setattr("sessile.replication.directory.CHECKED", 2)
    cluster, keys = filled(count=20)
    cluster.close("a", "b")
    cluster.run(1_500)
    assert listed(cluster) == dict.fromkeys("abc", keys)
    assert max(len(message.came) for message in cluster.messages(Listed)) == 32


@pytest.mark.parametrize(
    "message", [Listed(False, b"half", b""), Listed(False, b"", b"half"), Listed(True, bytes(48), b"")]
)
def test_nonsense_breaks_the_protocol(message: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a key, and more keys than one node may list."""
    monkeypatch.setattr("sessile.replication.directory.LISTED_MAX", 0)
    cluster = Cluster("ab", copies=2)
    node = cluster.servers["a"].node
    with pytest.raises(WireError):
        node.directory.take_listed(node.peers["b"], message)


def test_a_session_that_another_node_made_is_listed_by_its_first_holder() -> None:
    """As soon as it has the copy, whoever sent it."""
    cluster = Cluster("abc", copies=2, directory=True)
    key = cluster.first_key("a")
    backup = cluster.servers["a"].node.placement.order(key)[1]
    cluster.create(backup, key, x=1)
    cluster.run(150)
    assert listed(cluster) == {name: {key} for name in "abc"}


def test_what_was_held_by_one_that_is_gone_is_listed_no_longer() -> None:
    """Nobody else has it."""
    cluster = Cluster("ab", copies=1, directory=True)
    key = cluster.first_key("b")
    cluster.create("b", key, x=1)
    cluster.run(150)
    assert key in cluster.servers["a"].node.directory
    cluster.kill("b")
    cluster.run(2_500)
    assert key not in cluster.servers["a"].node.directory


def test_a_copy_that_came_unseen_is_listed_by_the_next_pass() -> None:
    """Passes of repair look at every copy, however it came."""
    cluster = Cluster("ab", copies=2, directory=True, repair_every_ms=500)
    key, other = cluster.first_key("a"), cluster.first_key("a", start=500)
    cluster.create("a", key, x=1)
    cluster.run(10)
    record = cluster.held("a", key)
    assert record is not None
    cluster.servers["a"].table.put(other, record)
    cluster.run(1_000)
    assert listed(cluster) == {name: {key, other} for name in "ab"}
