"""Sessions at and beyond the limits of what nodes take from each other: they cost themselves an error, and nobody a link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessile.backend import Acknowledged, PullStatus
from sessile.record import FIELDS_MAX, WRITERS_MAX, WRITTEN_FIELDS_MAX, Record
from sessile.replication import wire
from sessile.replication.intake import REFUSED
from sessile.replication.messages import Changed, Denied, Told
from tests.replication.cluster import Cluster, fields_of
from tests.replication.engines import Browser, Engines

if TYPE_CHECKING:
    from sessile.token import SessionKey

MANY: dict[str, Any] = {f"f{number}": number for number in range(FIELDS_MAX + 1)}


@pytest.fixture
def _lawless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables hold what does not travel, as if another release had other limits."""
    monkeypatch.setattr(Record, "travels", lambda *_: True)


def share(name: str) -> dict[str, Any]:
    """As many fields as one server may add to one that is there."""
    return {f"{name}{number}": number for number in range(WRITTEN_FIELDS_MAX - 1)}


def noted(cluster: Cluster) -> list[str]:
    """What was said in the log of records that were refused."""
    notes = [note for server in cluster.servers.values() for note in server.notes]
    return [str(note) for note in notes if getattr(note, "event", "") == "record refused"]


def assert_unharmed(cluster: Cluster, links: int = 2, views: dict[str, int] | None = None) -> None:
    """Nobody hung up, and other sessions are replicated as ever."""
    for name, server in cluster.servers.items():
        assert server.node.counts["protocol_errors"] == 0
        assert len(server.node.peers) == links
        assert not any(peer.repairing for peer in server.node.peers.values())
        if views is not None:
            assert server.node.counts["view_changes"] == views[name]
    other = cluster.first_key("a", start=5_000)
    ticket = cluster.create("a", other, ok=1)
    cluster.run(20)
    assert cluster.answer("a", ticket) is Acknowledged.YES
    held = list(cluster.values(other).values())
    assert len(held) >= 2 and all(each == {"ok": 1} for each in held)


def views(cluster: Cluster) -> dict[str, int]:
    return {name: server.node.counts["view_changes"] for name, server in cluster.servers.items()}


@pytest.mark.usefixtures("_lawless")
@pytest.mark.parametrize("strategy", ["all-to-all", "primary-backup"])
def test_a_session_that_nobody_takes_costs_no_link(strategy: str) -> None:
    """Created, written, repaired and asked for over half a minute: refused, counted, said once; the links stay."""
    cluster = Cluster("abc", strategy=strategy)
    before = views(cluster)
    key = cluster.first_key("a")
    created = cluster.create("a", key, **MANY)
    cluster.run(1_500)
    assert cluster.answer("a", created) is Acknowledged.NO
    cluster.write("a", key, x=1)
    asked = cluster.pull("b", key)
    cluster.run(30_000)
    answer = cluster.answer("b", asked)
    assert answer is not None and not isinstance(answer, Acknowledged) and answer.status is PullStatus.UNREACHABLE
    assert set(cluster.values(key)) == {"a"}
    assert REFUSED in {message.why for message in cluster.messages(Denied)}
    assert sum(server.node.counts["refused"] for server in cluster.servers.values()) > 2
    assert 1 <= len(noted(cluster)) <= 3
    assert "session_bytes_max and fields_max" in noted(cluster)[0]
    assert_unharmed(cluster, views=before)


@pytest.mark.usefixtures("_lawless")
def test_a_write_that_nobody_takes_costs_no_link() -> None:
    """One delta beyond the limits: denied with a reason of its own, and not followed by a whole record for ever."""
    cluster = Cluster("abc")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    ticket = cluster.write("a", key, **MANY)
    cluster.run(1_500)
    assert cluster.answer("a", ticket) is Acknowledged.NO
    assert next(message.why for message in cluster.messages(Denied)) == REFUSED
    assert_unharmed(cluster)


@pytest.mark.usefixtures("_lawless")
def test_a_server_that_starts_is_seeded_with_everything_else() -> None:
    """What it does not take is left out of what it is sent, or refused by it; the rest arrives."""
    cluster = Cluster("abc", strategy="all-to-all")
    keys = [cluster.first_key("a", start=number * 50) for number in range(8)]
    for number, key in enumerate(keys):
        cluster.create("a", key, **(MANY if number == 3 else {"n": number}))
    cluster.run(200)
    cluster.kill("c")
    cluster.run(2_000)
    cluster.start("c", incarnation=2)
    cluster.run(15_000)
    assert [cluster.values(key).get("c") for key in keys] == [None if n == 3 else {"n": n} for n in range(8)]
    assert_unharmed(cluster)


@pytest.mark.usefixtures("_lawless")
def test_an_end_and_what_is_told_beyond_limits_cost_no_link() -> None:
    """Two servers' parallel writes are told, and a tombstone of too many writers is sent: both are refused."""
    cluster = Cluster("abc", strategy="all-to-all")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    for name, half in (("a", 0), ("b", 1)):
        cluster.write(name, key, **{field: MANY[field] for field in list(MANY)[half::2]})
    cluster.run(2_000)
    assert list(cluster.messages(Told))
    other = cluster.first_key("a", start=9_000)
    cluster.create("a", other, x=1)
    cluster.run(10)
    record = cluster.held("a", other)
    assert record is not None
    for writer in range(1, WRITERS_MAX + 2):
        record, _ = record.write(writer, {}, now_ms=cluster.now_ms)
    cluster.servers["a"].table.put(other, record)
    cluster.end("a", other)
    cluster.run(12_000)
    cluster.servers["b"].node._tombstones.was_away(cluster.now_ms)
    cluster.run(3_000)
    assert cluster.servers["b"].node.is_trusting
    assert_unharmed(cluster)


def test_what_does_not_fit_a_frame_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """By every part of a node that sends records, counted: pushes, repair, seeding, answers."""
    cluster = Cluster("abc", strategy="all-to-all", ack_timeout_ms=100)
    monkeypatch.setattr(wire, "FRAME_BYTES_MAX", 20_000)
    key, beside = cluster.first_key("a"), cluster.first_key("a", start=9_000)
    ticket = cluster.create("a", key, x="x" * 30_000)
    cluster.create("a", beside, x=1)
    asked = cluster.pull("b", key)
    cluster.run(15_000)
    assert cluster.answer("a", ticket) is Acknowledged.NO
    answer = cluster.answer("b", asked)
    assert answer is not None and not isinstance(answer, Acknowledged) and answer.status is PullStatus.UNREACHABLE
    cluster.kill("c")
    cluster.run(2_000)
    cluster.start("c", incarnation=2)
    cluster.run(15_000)
    assert set(cluster.values(key)) == {"a"} and cluster.values(beside)["c"] == {"x": 1}
    assert cluster.servers["a"].node.counts["oversized"] > 2
    assert len(noted(cluster)) == 1
    assert_unharmed(cluster)


def test_sessions_that_two_servers_fill_at_the_same_time_are_alike_everywhere() -> None:
    """Each adds as many fields as it may: the record with all of them travels."""
    cluster = Cluster("abc", strategy="all-to-all")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    for name in "ab":
        cluster.write(name, key, **share(name))
    cluster.run(12_000)
    held = cluster.values(key)
    assert len(held["a"]) == 2 * WRITTEN_FIELDS_MAX - 1
    assert held["a"] == held["b"] == held["c"]
    assert_unharmed(cluster)


def test_what_parallel_writes_add_up_to_beyond_the_limits_is_refused_where_it_would_become_so() -> None:
    """Five servers fill it at once: no copy grows beyond what travels, and all links stay."""
    cluster = Cluster("abcde", strategy="all-to-all")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    for name in "abcde":
        cluster.write(name, key, **share(name))
    cluster.run(12_000)
    assert all(len(held) <= FIELDS_MAX for held in cluster.values(key).values())
    assert sum(server.node.counts["refused"] for server in cluster.servers.values()) > 0
    assert_unharmed(cluster, links=4)


# -- writers -------------------------------------------------------------------------------------------------------------


def test_a_browser_draws_no_tags_at_a_proxy() -> None:
    """Slow requests beside quick ones, over and over, the proxy's copy leaving in between: three writers, no more."""
    cluster = Engines("abc", strategy="primary-backup")
    browser, other = Browser(), Browser()
    session = cluster.open("a", browser)
    session["a"] = 1
    cluster.finish("a", browser, session)
    key: SessionKey = bytes.fromhex(session.key)
    placement = cluster.servers["a"].node.placement
    proxy = next(name for name in "abc" if name not in placement.order(key)[:2])
    for number in range(12):
        slow = cluster.open(proxy, browser)
        assert slow["a"] == 1
        quick = cluster.open(proxy, browser)
        quick["b"] = number
        cluster.finish(proxy, other, quick)
        cluster.run(2_100)
        assert cluster.servers[proxy].table.get(key) is None, "its copy has left"
        slow["s"] = number
        cluster.finish(proxy, browser, slow)
        cluster.run(2_100)
    record = cluster.held("a", key)
    assert record is not None
    assert len(record.version) == 2
    assert fields_of(record) == {"a": 1, "b": 11, "s": 11}
    assert {message.writer for message in cluster.messages(Changed, proxy)} == {0}, "as it announced"


def test_a_session_of_many_processes_goes_on_in_a_record_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers start anew between its writes; it gets a new id in time, and loses nothing. No link is lost over it."""
    monkeypatch.setattr("sessile.engine.WRITERS_RENEWED", 6)
    cluster = Engines("abc", strategy="all-to-all")
    browser = Browser()
    keys = set()
    longest = 0
    for number in range(20):
        name = "abc"[number % 3]
        cluster.engines[name]._renew_writer()  # as in a new process
        session: Any = cluster.open(name, browser)
        session.increment("n")
        session[f"of {number}"] = number
        cluster.finish(name, browser, session)
        cluster.run(20)
        keys.add(session.key)
        record = cluster.held("a", bytes.fromhex(session.key))
        assert record is not None
        longest = max(longest, len(record.version))
    session = cluster.open("a", browser)
    assert dict(session) == {"n": 20, **{f"of {number}": number for number in range(20)}}
    assert longest == 6 and len(keys) == 4
    assert_unharmed(cluster)
