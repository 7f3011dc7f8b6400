"""From a connection to a peer: greetings, and who is refused."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from sessile.backend import Acknowledged, Pulled, PullStatus
from sessile.delta import Delta
from sessile.record import ENDED, Record
from sessile.replication.config import NodeConfig
from sessile.replication.events import (
    AddressesFound,
    ChangePushed,
    Dial,
    DrawWriter,
    FramesReceived,
    HangUp,
    LinkDown,
    LinkUp,
    Note,
    Send,
    Woken,
)
from sessile.replication.links import DECIDED_MS
from sessile.replication.messages import PROTOCOL, Acked, Beat, Changed, Hello, MemberInfo, Rejoin, Whole, Writing
from sessile.replication.node import Node
from sessile.replication.wire import LENGTH_BYTES, decode, encode
from sessile.table import Table
from tests.replication.cluster import Cluster

ME = MemberInfo("b", "host-b", 1)


def make_node(**config: object) -> Node:
    table = Table(sessions_max=10, bytes_max=10_000, rotation_grace_ms=1_000, tombstone_keep_ms=1_000)
    return Node(NodeConfig(name="a", host="host-a", **config), table, rng=Random(1), now_ms=0)  # type: ignore[arg-type]


def hello(**changes: object) -> Hello:
    fields: dict[str, object] = {
        "protocol": PROTOCOL, "cluster": "sessile", "strategy": "primary-backup:2", "me": ME, "writer": 9,
        "is_fresh": True, "members": (ME,),
    }  # fmt: skip
    return Hello(**{**fields, **changes})  # type: ignore[arg-type]


def say(node: Node, message: object, link: int = 1, now_ms: int = 10) -> list[object]:
    return list(node.handle(FramesReceived(link, (encode(message)[LENGTH_BYTES:],)), now_ms))  # type: ignore[arg-type]


def test_both_sides_greet_first_and_then_speak() -> None:
    """The greeting says who this is; after the other's a peer is there."""
    node = make_node()
    (greeting,) = (effect for effect in node.handle(LinkUp(1), 0) if isinstance(effect, Send))
    said = decode(greeting.frame[LENGTH_BYTES:], is_greeting=True)
    assert isinstance(said, Hello) and (said.me.name, said.is_fresh, said.links) == ("a", True, ())
    assert not node.peers
    say(node, hello())
    assert set(node.peers) == {"b"} and node.placement.names == ("a", "b")
    node.handle(LinkDown(1), 20)
    assert not node.peers
    node.handle(LinkDown(1), 21)


@pytest.mark.parametrize(
    ("greeting", "word"),
    [
        (hello(protocol=99), "protocol"),
        (hello(cluster="another"), "cluster"),
        (hello(strategy="all-to-all"), "strategy"),
        (hello(me=MemberInfo("a", "x", 1)), "two nodes are called 'a'"),
    ],
)
def test_who_is_none_of_ours_is_refused_with_the_reason(greeting: Hello, word: str) -> None:
    """Another protocol, cluster or strategy, or this node's own name: the link is hung up, nobody is a peer."""
    node = make_node()
    node.handle(LinkUp(1), 0)
    effects = say(node, greeting)
    assert [effect.link for effect in effects if isinstance(effect, HangUp)] == [1]
    (note,) = (effect for effect in effects if isinstance(effect, Note))
    assert word in note.about["reason"] and note.about["remedy"]
    assert not node.peers


def test_two_writers_of_one_tag_are_not_both_peers() -> None:
    """A clash of tags would give two writes one name."""
    node = make_node()
    node.handle(LinkUp(1), 0)
    say(node, hello())
    node.handle(LinkUp(2), 10)
    say(node, hello(me=MemberInfo("c", "c", 1)), link=2)
    assert set(node.peers) == {"b"}
    assert node.counts["refused_links"] == 1


@pytest.mark.parametrize("message", [Beat(1), b"\xc1", b""])
def test_a_link_begins_with_a_greeting_and_has_one(message: Beat | bytes) -> None:
    """Anything else first, or a second one, breaks the protocol."""
    node = make_node()
    node.handle(LinkUp(1), 0)
    payload = encode(message)[LENGTH_BYTES:] if isinstance(message, Beat) else message
    assert any(isinstance(effect, HangUp) for effect in node.handle(FramesReceived(1, (payload,)), 1))
    node.handle(LinkUp(2), 2)
    say(node, hello(), link=2)
    assert any(isinstance(effect, HangUp) for effect in say(node, hello(), link=2))
    assert node.counts["protocol_errors"] == 2


def test_who_never_greets_is_hung_up() -> None:
    """After two seconds; who greeted in time is not."""
    node = make_node()
    node.handle(LinkUp(1), 0)
    node.handle(LinkUp(2), 0)
    say(node, hello(), link=2)
    effects = [effect for at in range(100, 2_200, 100) for effect in node.handle(Woken(), at)]
    assert HangUp(1, "nobody greeted") in effects and HangUp(2, "nobody greeted") not in effects


def ended_and_forgotten(side: str, others: str) -> tuple[Cluster, bytes]:
    """A session that has ended on one side, which need remember it no longer, and lives on the other; they are still apart."""
    cluster = Cluster("".join(sorted(side + others)), strategy="all-to-all", tombstone_keep_ms=3_000)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(20)
    cluster.cut(side, others)
    cluster.run(2_000)
    cluster.end(side[0], key)
    cluster.run(3_000)
    for name in side:
        cluster.servers[name].table.drop(key)
    return cluster, key


def has_ended(cluster: Cluster, name: str, key: bytes) -> bool:
    """Whether asking at this server for a session gives its end."""
    record = cluster.asked(name, key).record
    return record is not None and record.state == ENDED


def test_two_that_were_apart_too_long_do_not_go_on_as_they_were() -> None:
    """The side with fewer members drops its table and greets anew; what ended on the other side stays ended."""
    cluster, key = ended_and_forgotten("ab", "c")
    cluster.heal()
    cluster.run(3_000)
    assert list(cluster.messages(Rejoin)) or cluster.servers["c"].node.counts["reunions"]
    assert cluster.values(key) == {}
    assert all(set(server.node.peers) == set("abc") - {name} for name, server in cluster.servers.items())
    assert has_ended(cluster, "c", key)


def apart(*sides: str) -> Cluster:
    """Sides that have not heard each other for longer than ended sessions are remembered, and still do not."""
    names = "".join(sorted("".join(sides)))
    cluster = Cluster(names, strategy="all-to-all", tombstone_keep_ms=3_000)
    cluster.cut(*sides)
    cluster.run(5_000)
    return cluster


def began_anew(cluster: Cluster) -> set[str]:
    """Who is not in its first incarnation any more."""
    return {name for name, server in cluster.servers.items() if server.node.membership.me.incarnation > 1}


@pytest.mark.parametrize(
    ("sides", "losers"), [(("ab", "cde"), "ab"), (("ad", "bc"), "ad"), (("bc", "ad"), "ad"), (("a", "b"), "a")]
)
def test_one_whole_side_starts_over_and_the_other_goes_on(sides: tuple[str, str], losers: str) -> None:
    """The smaller one; of two that are equal the one with the first name, wherever the others' names lie."""
    cluster = apart(*sides)
    cluster.heal()
    cluster.run(4_000)
    assert began_anew(cluster) == set(losers)
    assert all(len(server.node.peers) == len(cluster.servers) - 1 for server in cluster.servers.values())


@pytest.mark.parametrize(("later_ms", "starts_over"), [(0, False), (1_999, False), (2_000, True)])
def test_what_was_decided_once_is_decided_for_a_while(later_ms: int, starts_over: bool) -> None:  # noqa: FBT001
    """Two links of one pair may come up at once, and one side grow in between: they do not both start over.

    But if each has told the other to, and neither heard, it is decided anew.
    """
    node = make_node(tombstone_keep_ms=3_000)
    others = tuple(MemberInfo(name, name, 1) for name in "cd")
    for link, me in ((1, ME), (2, others[0])):
        node.handle(LinkUp(link), 0)
        say(node, hello(me=me, members=(me,), writer=link), link=link)
    node.handle(LinkDown(1), 20)
    effects = []
    for link, now_ms, theirs in ((3, 4_000, ()), (4, 4_000 + later_ms, (1, 2))):
        node.handle(LinkUp(link), now_ms)
        node.handle(FramesReceived(2, (encode(Beat(1))[LENGTH_BYTES:],)), now_ms)
        effects += say(node, hello(writer=1, members=(ME, *others), links=theirs), link=link, now_ms=now_ms)
    sent = [effect.frame[LENGTH_BYTES:] for effect in effects if isinstance(effect, Send)]
    assert [type(decode(frame)) for frame in sent].count(Rejoin) == 2 - starts_over
    assert node.membership.me.incarnation == 1 + starts_over


def test_who_started_over_is_no_bridge_for_what_has_ended() -> None:
    """Its mate of before still holds what ended on the other side, and greets it before it meets that side."""
    cluster, key = ended_and_forgotten("cde", "ab")
    cluster.cuts -= {frozenset(("a", other)) for other in "cde"}
    cluster.run(3_000)
    assert began_anew(cluster) == {"a", "b"} and cluster.values(key) == {}
    cluster.heal()
    cluster.run(3_000)
    assert cluster.values(key) == {} and has_ended(cluster, "b", key)


@pytest.mark.parametrize(("silent_ms", "reunions"), [(2_700, 0), (2_701, 1)])
def test_ended_sessions_must_still_be_told_of_after_a_silence(silent_ms: int, reunions: int) -> None:
    """Who was silent for nearly as long as they are remembered is apart already; for less, it goes on as it was."""
    node = make_node(tombstone_keep_ms=3_000)
    node.handle(LinkUp(1), 0)
    say(node, hello(), now_ms=10)
    node.handle(LinkDown(1), 20)
    node.handle(LinkUp(2), 10 + silent_ms)
    say(node, hello(), link=2, now_ms=10 + silent_ms)
    assert node.counts["reunions"] == reunions


@pytest.mark.parametrize("first", ["", "ab", "c"])
def test_a_newcomer_is_no_bridge_for_what_has_ended(first: str) -> None:
    """It reaches two sides that were apart for too long, whichever it meets first: what ended does not come back."""
    cluster, key = ended_and_forgotten("ab", "c")
    assert cluster.held("c", key) is not None
    later = set("abc") - set(first) if first else set()
    cluster.cut("d", "".join(sorted(later)))
    cluster.start("d")
    cluster.run(300)
    cluster.cuts -= {frozenset(("d", other)) for other in "abc"}
    cluster.run(2_000)  # less than silence would need to tell
    if first != "c":  # otherwise the sides are equal, and it is for them to start over
        assert began_anew(cluster) == {"c"} and cluster.values(key) == {}
    assert set(cluster.servers["d"].node.peers) == set("abc")
    if first == "c":  # the newcomer holds for that one what it learned last
        cluster.run(20_000)
    assert not any(cluster.values(key).values()), "they are one again"


@pytest.mark.parametrize("is_met", [False, True])
@pytest.mark.parametrize("teller", ["b", "c"])
def test_who_is_apart_from_a_peer_is_none_yet(teller: str, is_met: bool) -> None:  # noqa: FBT001
    """Whichever of the two says so. Who was a peer before goes on: it heard of whatever ended by this node."""
    node = make_node()
    b, c = ME, MemberInfo("c", "host-c", 1)
    if is_met:
        node.handle(LinkUp(9), 0)
        say(node, hello(me=c, members=(c,), writer=2), link=9)
        say(node, Beat(1), link=9)
        node.handle(LinkDown(9), 10)
    node.handle(LinkUp(1), 10)
    node.handle(LinkUp(2), 10)
    say(node, hello(me=b, members=(b, c), writer=1, apart=(1,) if teller == "b" else ()), link=1)
    say(node, hello(me=c, members=(c, b), writer=2, apart=(1,) if teller == "c" else ()), link=2)
    assert set(node.peers) == ({"b", "c"} if is_met else {"b"})
    node.handle(LinkUp(3), 20)
    say(node, hello(me=c, members=(c, b), writer=2, apart=(1,) if teller == "c" else ()), link=3, now_ms=20)
    assert node.counts["reunions"] == (teller == "c" and not is_met), (
        "now that it was linked to the other when it greeted"
    )


def test_two_that_turn_out_to_be_apart_keep_no_other_link() -> None:
    """Where ends are remembered for hardly longer than a silent link is kept."""
    node = make_node(tombstone_keep_ms=1_001)
    for link, now_ms in ((1, 10), (2, 960)):
        node.handle(LinkUp(link), now_ms)
        effects = say(node, hello(), link=link, now_ms=now_ms)
    assert {effect.link for effect in effects if isinstance(effect, HangUp)} == {1, 2}
    assert not node.peers and node.membership.link_of("b") is None and node.counts["reunions"] == 1


def test_a_greeting_that_tells_of_links_to_nobody_is_none() -> None:
    """Its link is hung up, and counted."""
    node = make_node()
    node.handle(LinkUp(1), 0)
    assert any(isinstance(effect, HangUp) for effect in say(node, hello(links=(1,))))
    assert node.counts["protocol_errors"] == 1 and not node.peers
    node.handle(LinkUp(2), 0)
    assert any(isinstance(effect, HangUp) for effect in say(node, hello(apart=(-1,)), link=2))
    assert node.counts["protocol_errors"] == 2 and not node.peers


def test_nothing_that_was_kept_or_asked_outlives_a_start_over() -> None:
    """A kept copy is as old as the table; who waits for an answer is told that nobody gave one."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(20)
    proxy = cluster.servers["a"].node.placement.order(key)[2]
    assert cluster.asked(proxy, key).status is PullStatus.RECORD
    ticket = cluster.pull(proxy, key)
    server = cluster.servers[proxy]
    server.node.start_over(("a",))
    cluster.run(1)
    assert cluster.answer(proxy, ticket) == Pulled(PullStatus.UNREACHABLE)
    for name in set("abc") - {proxy}:
        cluster.servers[name].table.drop(key)
    assert cluster.asked(proxy, key).status is not PullStatus.RECORD


def test_a_link_that_breaks_before_the_greeting_is_dialled_again() -> None:
    """Somebody listens there but says nothing: after a pause another attempt is made, not none ever."""
    node = make_node()
    assert Dial("b") in node.handle(AddressesFound(("b",)), 0)
    node.handle(LinkUp(1, "b"), 1)
    assert Dial("b") not in node.handle(LinkDown(1), 2)
    assert Dial("b") in [effect for at in range(3, 2_000, 50) for effect in node.handle(Woken(), at)]


def test_a_tag_that_is_drawn_between_the_greetings_is_announced() -> None:
    """What this node said in its own greeting is not so any more when the other's comes: it says so first."""
    node = make_node()
    node.handle(LinkUp(1), 0)
    born = Record.create(now_ms=0, idle_ms=1_000, deadline_ms=10_000)
    record, stamp = born.write(77, {"x": b"\x01"}, now_ms=0)
    key = b"k" * 16
    node.handle(ChangePushed(1, key, Delta.of(record, key, born, stamp, names=["x"], counted=()), "one"), 1)
    sent = [decode(effect.frame[LENGTH_BYTES:]) for effect in say(node, hello()) if isinstance(effect, Send)]
    assert sent[0] == Writing(77)


def test_who_is_told_to_start_over_drops_its_table_and_every_link() -> None:
    """All its links, not only the one that said so: each peer must be greeted anew; nothing more of that read counts."""
    node = make_node()
    for link, name in enumerate("bc", 1):
        node.handle(LinkUp(link), 0)
        say(node, hello(me=MemberInfo(name, name, 1), writer=link), link=link)
    node.handle(LinkUp(3), 10)
    node._context.replica.table.put(b"k" * 16, Record.create(now_ms=0, idle_ms=1_000, deadline_ms=10_000))
    frames = tuple(encode(message)[LENGTH_BYTES:] for message in (Rejoin(), Acked(99)))
    effects = node.handle(FramesReceived(1, frames), 20)
    assert sorted(effect.link for effect in effects if isinstance(effect, HangUp)) == [1, 2, 3]
    assert DrawWriter() in effects and not node.peers and not len(node._context.replica.table)
    assert node.counts["protocol_errors"] == 0


def crossing(**config: Any) -> tuple[Cluster, bytes]:
    """A session at one of two servers, and the other started anew; their link is one that the first one's will replace."""
    cluster = Cluster("ab", delay_ms=5, **config)
    cluster.kill("b")
    cluster.run(300)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.start("b", incarnation=2)
    cluster.run(6)
    assert cluster.servers["b"].node.peers and cluster.held("b", key) is None
    return cluster, key


def test_a_question_outlives_the_link_that_another_replaces() -> None:
    """Both dialled, and the link that carries the question goes: it is asked over the other, and nobody says `none`."""
    cluster, key = crossing()
    cluster.mangle = lambda _, __, message: isinstance(message, Whole)  # or it were there before it is asked for
    ticket = cluster.pull("b", key)
    cluster.dial("a", "b")
    cluster.run(60)
    answer = cluster.answer("b", ticket)
    assert isinstance(answer, Pulled) and answer.status is PullStatus.RECORD, answer


@pytest.mark.parametrize("is_replaced", [True, False])
@pytest.mark.parametrize("ends", [False, True])
def test_what_is_on_its_way_outlives_its_link(ends: bool, is_replaced: bool) -> None:  # noqa: FBT001
    """It was lost with its link: it is sent anew over the next one, and nobody is told that it is held before it is."""
    cluster, key = crossing()
    cluster.run(100)
    cluster.mangle = lambda source, _, message: source == "a" and isinstance(message, Whole | Changed)
    ticket = cluster.end("a", key) if ends else cluster.write("a", key, y=2)
    cluster.run(6)
    if is_replaced:
        cluster.dial("a", "b")
    else:
        cluster.close("a", "b")
    cluster.mangle = lambda *_: False
    heard = False
    for _ in range(100):
        cluster.run(1)
        heard = heard or cluster.answer("a", ticket) is not None
        here, there = cluster.held("a", key), cluster.held("b", key)
        assert here is not None and there is not None
        assert not heard or there.same_state(here)
    assert heard and cluster.answer("a", ticket) is Acknowledged.YES


def test_who_was_told_to_start_over_is_remembered_for_a_while() -> None:
    """Whoever has had the time to do so by now is forgotten."""
    node = make_node()
    node.handle(LinkUp(1), 1_000)
    node._links._told = {"c": (1, 1_001), "d": (1, 1_000)}
    node._links._reunite(1, ME, (2, ("a", "x")), (1, ("b",)))
    assert node._links._told == {"c": (1, 1_001), "b": (ME.incarnation, 1_000 + DECIDED_MS)}


def test_a_link_that_closes_before_the_greeting_is_no_refusal() -> None:
    """Somebody listens there: the member is not dead for certain."""
    node = make_node()
    node.handle(AddressesFound(("b",)), 0)
    node.handle(LinkUp(1, "b"), 1)
    node.handle(LinkDown(1), 2)
    dials = node.membership._dials
    assert not dials.is_untried("b") and not dials.is_refused("b")
