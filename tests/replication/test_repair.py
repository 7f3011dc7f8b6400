"""Copies that differ become alike, and what is not a node's to hold leaves it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from sessile.backend import Acknowledged
from sessile.errors import WireError
from sessile.record import ENDED, LIVE
from sessile.replication import repair
from sessile.replication.events import Woken
from sessile.replication.messages import Differ, Digest, Offered, Touched, Wanted, Whole
from sessile.replication.peer import Peer
from sessile.replication.repair import BUCKETS, OFFER_ENTRIES
from tests.replication.cluster import Cluster, key_number
from tests.replication.test_links import make_node


def filled(names: str, count: int, **config: Any) -> tuple[Cluster, list[bytes]]:
    """So many sessions, made where they are first held."""
    cluster = Cluster(names, **config)
    keys = [key_number(number) for number in range(count)]
    for number, key in enumerate(keys):
        cluster.create(cluster.servers[names[0]].node.placement.order(key)[0], key, n=number)
    cluster.run(30)
    cluster.seen.clear()
    return cluster, keys


def same(cluster: Cluster, keys: list[bytes]) -> bool:
    """Every holder holds every session, alike, and nobody else does."""
    placement = next(iter(cluster.servers.values())).node.placement
    for key in keys:
        copies = {name: cluster.held(name, key) for name in cluster.servers}
        holding = {name for name, copy in copies.items() if copy is not None}
        if holding != set(placement.holders(key)):
            return False
        first = copies[placement.holders(key)[0]]
        assert first is not None
        if not all(first.same_state(copy) for copy in copies.values() if copy is not None):
            return False
    return True


def test_equal_copies_cost_one_digest_each_way() -> None:
    """Nothing differs: digests go round, and no session."""
    cluster, keys = filled("ab", 22)
    for key in keys[20:]:
        cluster.end("a", key)
    cluster.run(100)
    cluster.seen.clear()
    cluster.run(13_000)
    assert same(cluster, keys[:20])
    assert list(cluster.messages(Digest)) and not list(cluster.messages(Differ)) and not list(cluster.messages(Whole))
    assert not list(cluster.messages(Offered))


def test_what_one_lacks_the_other_sends() -> None:
    """Missing and older copies, on both sides, are alike after a pass; only these travel."""
    cluster, keys = filled("ab", 20)
    for name, key in (("a", keys[0]), ("b", keys[1])):
        cluster.servers[name].table.drop(key)
    for name, key in (("a", keys[2]), ("b", keys[3])):
        held = cluster.held(name, key)
        assert held is not None
        cluster.servers[name].table.put(key, held.write(5, {"z": b"\x01"}, now_ms=cluster.now_ms)[0])
    cluster.run(13_000)
    assert same(cluster, keys)
    sent = [key for message in cluster.messages(Whole) for key, _ in message.items]
    assert set(sent) == {keys[n] for n in range(4)}
    assert sum(server.node.counts["repaired"] for server in cluster.servers.values()) == len(sent)
    cluster.seen.clear()
    cluster.run(13_000)
    assert list(cluster.messages(Digest)) and not list(cluster.messages(Offered)), (
        "what was mended is not offered again"
    )


def test_a_difference_is_found_with_one_digest() -> None:
    """The peer names the buckets in which something differs; both offer what they have there, and announce nothing more."""
    cluster, keys = filled("ab", 3, repair_every_ms=1_000_000)
    cluster.run(3_000)
    for key in keys:
        cluster.servers["b"].table.drop(key)
    cluster.seen.clear()
    cluster.servers["a"].node._repair.start()
    cluster.run(300)
    assert same(cluster, keys)
    assert (len(list(cluster.messages(Digest, "a"))), len(list(cluster.messages(Digest, "b")))) == (1, 0)
    assert [message.buckets for message in cluster.messages(Differ)] == [bytes(sorted(key[0] for key in keys))]


@pytest.mark.parametrize("ends", [False, True])
def test_what_is_over_is_not_given_back(ends: bool) -> None:  # noqa: FBT001
    """One server has let go of what has run out of time, the other is about to: else they would hold it for ever."""
    cluster, keys = filled("ab", 2)
    held = cluster.held("a", keys[0])
    assert held is not None
    over = held.end(ENDED, cluster.now_ms - 600_000) if ends else replace(held, idle_ms=20)
    cluster.servers["a"].table.drop(keys[0])
    cluster.servers["b"].table.put(keys[0], over)
    cluster.seen.clear()
    cluster.run(13_000)
    assert cluster.held("a", keys[0]) is None and cluster.held("b", keys[0]) is not None
    assert not list(cluster.messages(Offered))


def test_a_missed_end_is_caught_up_with() -> None:
    """A member that was away hears of the end, holder or not, and no copy of it comes back."""
    cluster, keys = filled("abc", 6, copies=2)
    cluster.cut("c", "ab")
    cluster.run(1_500)
    for key in keys:
        cluster.end("a" if cluster.held("a", key) else "b", key)
    cluster.run(50)
    cluster.heal()
    cluster.run(3_000)
    assert [cluster.servers[name].table.state(key) for name in "abc" for key in keys] == [ENDED] * 18


def test_a_dead_holder_s_copies_are_made_elsewhere_and_given_back() -> None:
    """Primary-backup keeps its number of copies: while the server is gone, and when it is back."""
    cluster, keys = filled("abcd", 40, copies=2)
    cluster.kill("b")
    cluster.run(2_000)
    assert same(cluster, keys)
    cluster.start("b", incarnation=2)
    cluster.run(3_000)
    assert same(cluster, keys)


def test_a_newcomer_gets_its_share_and_those_who_hold_too_much_let_go() -> None:
    """Placement moves a part of the sessions to it; every holder has them before anybody drops one."""
    cluster, keys = filled("ab", 40, copies=2)
    cluster._addresses = ("a", "b", "c")
    cluster.start("c")
    for _ in range(300):
        cluster.run(10)
        assert all(sum(cluster.held(name, key) is not None for name in cluster.servers) >= 2 for key in keys)
    assert same(cluster, keys)
    assert 10 < cluster.servers["c"].table.sessions < 40
    assert not any(server.node._repair._quiet for server in cluster.servers.values())


def test_a_node_that_leaves_hands_over_first() -> None:
    """It goes when others hold all it has, keeps its copies until then, and every session is where it belongs."""
    cluster, keys = filled("abc", 30, copies=2)
    ticket = cluster.stop("b")
    while cluster.answer("b", ticket) is None:
        cluster.run(10)
    assert cluster.answer("b", ticket) is Acknowledged.YES
    assert cluster.servers["b"].table.sessions > 0
    cluster.run(10)
    del cluster.servers["b"]
    cluster.run(500)
    assert same(cluster, keys)


def test_a_node_that_leaves_does_not_wait_for_a_full_one() -> None:
    """If another one holds what it hands over, it goes at once; what the full one lacks, repair brings when there is room."""
    cluster, keys = filled("abc", 30)
    full = cluster.servers["c"].table
    for key in keys[:10]:
        full.drop(key)
    full._sessions_max = 0
    ticket, began_ms = cluster.stop("b"), cluster.now_ms
    while cluster.answer("b", ticket) is None:
        cluster.run(10)
    assert cluster.answer("b", ticket) is Acknowledged.YES
    assert cluster.now_ms - began_ms < cluster.servers["b"].node._config.drain_ms // 10


def test_a_node_that_leaves_goes_on_trying_where_nobody_has_room() -> None:
    """What it has would be lost with it."""
    cluster, _ = filled("ab", 10)
    for key in cluster.servers["a"].table:
        cluster.servers["a"].table.drop(key)
    cluster.servers["a"].table._sessions_max = 0
    ticket = cluster.stop("b")
    cluster.run(2_000)
    assert cluster.answer("b", ticket) is None
    cluster.servers["a"].table._sessions_max = 10
    cluster.run(200)
    assert cluster.answer("b", ticket) is Acknowledged.YES
    assert cluster.servers["a"].table.sessions == 10


def test_what_is_sent_at_a_time_is_bounded() -> None:
    """Many sessions go in pieces, as the window allows, and all arrive."""
    cluster, keys = filled("a", 300)
    for key in keys:
        held = cluster.held("a", key)
        assert held is not None
        cluster.servers["a"].table.put(key, held.write(5, {"z": b"\xc4\xff" + b"z" * 255}, now_ms=cluster.now_ms)[0])
    cluster.config["repair_window_bytes"] = 20_000
    cluster._addresses = ("a", "b")
    cluster.start("b")
    cluster.run(3_000)
    assert len(cluster.values(keys[0])) == 2 and all(set(cluster.values(key)) == {"a", "b"} for key in keys)
    pieces = [[key for key, _ in message.items] for message in cluster.messages(Whole, "a", "b")]
    assert max(map(len, pieces)) < 300 and [key for piece in pieces for key in piece] == keys, "each once, in order"


def test_a_record_that_finds_no_room_is_left_out() -> None:
    """A full peer denies; the rest goes on, and nothing is dropped that has no other copy."""
    cluster, keys = filled("a", 10, copies=1)
    cluster._addresses = ("a", "b")
    cluster.start("b")
    cluster.servers["b"].table._sessions_max = 0
    cluster.run(3_000)
    assert cluster.servers["b"].table.sessions == 0
    assert all(cluster.servers["a"].table.state(key) == LIVE for key in keys)
    assert cluster.servers["b"].node.counts["no_room"] > 0


@pytest.mark.parametrize(
    ("take", "message"),
    [
        ("take_digest", Digest(b"x")),
        ("take_offered", Offered(1, b"x")),
        ("take_offered", Offered(1, bytes(24 * (OFFER_ENTRIES + 1)))),
        ("take_wanted", Wanted(99, b"")),
    ],
)
def test_nonsense_breaks_the_protocol(take: str, message: object) -> None:
    """Digests of another size, offers that are none or too long, answers to offers that were not made."""
    cluster, _ = filled("ab", 1)
    node = cluster.servers["a"].node
    with pytest.raises(WireError):
        getattr(node._repair, take)(node.peers["b"], message)


def test_the_longest_offer_is_answered() -> None:
    """One entry more breaks the protocol."""
    cluster, _ = filled("ab", 1)
    node = cluster.servers["a"].node
    cluster.seen.clear()
    node._repair.take_offered(node.peers["b"], Offered(1, bytes(24 * OFFER_ENTRIES)))
    for effect in node._context.take_effects():
        cluster._perform(cluster.servers["a"], effect)
    node = cluster.servers["b"].node
    node._repair._offers["a"] = {1: b""}
    cluster.run(5)
    (wanted,) = cluster.messages(Wanted, "a", "b")
    assert wanted.keys == bytes(16 * OFFER_ENTRIES)


def test_a_wanted_list_must_be_keys() -> None:
    """An answer to an offer that names half a key."""
    cluster, keys = filled("ab", 1)
    node = cluster.servers["a"].node
    node._repair._offer(node.peers["b"], [keys[0] + bytes(8)])
    (number,) = node._repair._offers["b"]
    with pytest.raises(WireError):
        node._repair.take_wanted(node.peers["b"], Wanted(number, b"half"))


def test_offers_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is sent when one was answered, and all is handed over in the end."""
    monkeypatch.setattr("sessile.replication.repair.OFFERS_MAX", 2)
    monkeypatch.setattr("sessile.replication.repair.OFFERED_ENTRIES", 3)
    cluster, keys = filled("ab", 30, copies=2)
    ticket = cluster.stop("b")
    offers = cluster.servers["b"].node._repair._offers
    for _ in range(100):
        cluster.run(1)
        assert len(offers.get("a", {})) <= 2
    assert len(list(cluster.messages(Offered, "b", "a"))) >= 10
    cluster.run(5_000)
    assert cluster.answer("b", ticket) is Acknowledged.YES
    assert all(cluster.held("a", key) is not None for key in keys)


def test_a_pass_over_many_keys_takes_its_time() -> None:
    """It goes on after pauses; keys that leave meanwhile do no harm."""
    cluster, keys = filled("ab", 1_200, copies=2)
    repair = cluster.servers["a"].node._repair
    repair.start()
    cluster.run(2)
    assert not repair.is_idle
    for key in keys[-300:]:
        cluster.servers["a"].table.drop(key)
        cluster.servers["b"].table.drop(key)
    cluster.run(200)
    assert repair.is_idle and same(cluster, keys[:-300])


def test_buckets_are_first_bytes() -> None:
    """Every key has one, and a differing bucket is named by one byte."""
    assert BUCKETS == 256


def test_a_pass_that_is_asked_for_during_another_follows_it() -> None:
    """The one under way may be past what changed, so another one begins once it is over."""
    cluster, _ = filled("ab", 2_000, copies=2)
    node = cluster.servers["a"].node
    cluster.run(1_000)
    passes = node.counts["repair_passes"]
    node._repair.start(announces=False)
    cluster.run(3)
    assert node.counts["repair_passes"] == passes + 1 and not node._repair.is_idle
    node._repair.start(announces=False)
    cluster.run(3)
    assert node.counts["repair_passes"] == passes + 1, "not two at once"
    cluster.run(50)
    assert node.counts["repair_passes"] == passes + 2 and node._repair.is_idle


def test_a_session_that_goes_between_offer_and_answer_is_left_out() -> None:
    """What ran out of time before it was wanted is not sent; the others are."""
    cluster, keys = filled("ab", 5)
    for key in keys:
        cluster.servers["b"].table.drop(key)

    def forget(source: str, target: str, message: object) -> bool:
        if isinstance(message, Wanted) and target == "a":
            cluster.servers["a"].table.drop(keys[0])
        return False

    cluster.mangle = forget
    cluster.run(13_000)
    sent = {key for message in cluster.messages(Whole, "a", "b") for key, _ in message.items}
    assert sent == set(keys[1:]) and cluster.values(keys[0]) == {}


def test_what_the_queue_does_not_take_is_sent_later_and_once() -> None:
    """Repair waits for acknowledgements where more is outstanding than may be; nothing is skipped or sent again."""
    cluster, keys = filled("ab", 300, queue_bytes_max=1_000, repair_window_bytes=2**20)
    large = {"z": b"\xc5\x04\x00" + bytes(1_024)}
    for key in keys:
        held = cluster.held("a", key)
        assert held is not None
        cluster.servers["a"].table.put(key, held.write(5, large, now_ms=cluster.now_ms)[0])
    cluster.run(13_000)
    assert same(cluster, keys)
    sent = [key for message in cluster.messages(Whole, "a", "b") for key, _ in message.items]
    assert len(sent) == len(set(sent)) == 300
    assert cluster.servers["a"].node.counts["overflows"] >= 1


def test_a_copy_that_changes_while_it_is_offered_is_offered_again() -> None:
    """A server that is no holder drops its copy only when the holders have what it is now, and soon."""
    cluster, (key,) = filled("abc", 1, copies=2)
    (proxy,) = set("abc") - set(cluster.servers["a"].node.placement.holders(key))
    held = cluster.asked(proxy, key).record
    assert held is not None
    server = cluster.servers[proxy]
    server.table.put(key, held)
    changed, _ = held.write(5, {"z": b"\x05"}, now_ms=cluster.now_ms)

    def change(source: str, target: str, message: object) -> bool:
        if isinstance(message, Wanted) and target == proxy and server.table.get(key) == held.pack():
            server.table.put(key, changed)
        return False

    cluster.mangle = change
    cluster.seen.clear()
    server.node._repair.start(announces=False)
    cluster.run(100)
    assert cluster.held(proxy, key) is None and not list(cluster.messages(Digest, proxy))
    assert set(cluster.values(key)) == set(cluster.servers["a"].node.placement.holders(key))
    assert all(values == {"n": 0, "z": 5} for values in cluster.values(key).values())


def test_a_leaver_hands_over_what_it_knows_of_ends() -> None:
    """An end that only it has heard of is with the others before it goes: nobody would be left who knows."""
    cluster, (key,) = filled("abc", 1, copies=2)
    held = cluster.held("a" if cluster.held("a", key) else "b", key)
    assert held is not None
    cluster.servers["c"].table.put(key, held.end(ENDED, cluster.now_ms))
    ticket = cluster.stop("c")
    while cluster.answer("c", ticket) is None:
        cluster.run(1)
    assert cluster.answer("c", ticket) is Acknowledged.YES
    assert [cluster.servers[name].table.state(key) for name in "ab"] == [ENDED, ENDED]


def test_what_waits_to_be_offered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a peer that answers more slowly than sessions change, only what was found last is kept."""
    monkeypatch.setattr(repair, "OFFERS_MAX", 0)
    cluster, _ = filled("ab", 5)
    node = cluster.servers["a"].node
    for _ in range(5):
        node._repair._offer(node.peers["b"], [bytes(24)] * 3)
    assert len(node._repair._unoffered["b"]) == 1
    monkeypatch.setattr(repair, "OFFERED_ENTRIES", 3)
    cluster, _ = filled("ab", 9)
    node = cluster.servers["a"].node
    waiting = []
    for _ in range(6):
        node._repair._offer(node.peers["b"], [bytes(24)] * 3)
        waiting.append(len(node._repair._unoffered["b"]))
    assert waiting == [1, 2, 3, 4, 1, 2], "a whole table may wait, and no more"


def crowded(cluster: Cluster, name: str) -> None:
    """Whenever an offer of this server is answered, a burst of its changes fills the window."""
    numbers = iter(range(10_000))

    def burst(source: str, target: str, message: object) -> bool:
        del source
        if isinstance(message, Wanted) and target == name:
            for _ in range(40):
                cluster.create(name, key_number(100_000 + next(numbers)), ack="none", x="x" * 50)
        return False

    cluster.mangle = burst


def test_a_burst_of_changes_does_not_stop_repair() -> None:
    """What was wanted is sent as soon as the window has room again, though no answer to a repair comes any more."""
    cluster = Cluster("ab", repair_window_bytes=2_000, repair_every_ms=1_000_000, delay_ms=5)
    keys = [key_number(number) for number in range(18)]
    for key in keys:
        cluster.create("b", key, x=1)
    cluster.run(100)
    for key in keys:
        record = cluster.held("a", key)
        assert record is not None
        cluster.servers["a"].table.put(key, record.write(77, {"x": b"\x02"}, now_ms=cluster.now_ms)[0])
    crowded(cluster, "a")
    cluster.servers["a"].node._repair.start()
    cluster.run(500)
    assert not cluster.servers["a"].node.peers["b"].repairing
    assert all(cluster.values(key)["b"] == {"x": 2} for key in keys)


def test_a_server_that_leaves_in_a_burst_of_changes_hands_everything_over() -> None:
    """It neither waits until the time is over nor goes with records unsent."""
    cluster = Cluster("abc", copies=1, repair_window_bytes=2_000, delay_ms=5)
    keys = [cluster.first_key("a", start=50 * number) for number in range(30)]
    for key in keys:
        cluster.create("a", key, x=1)
    cluster.run(500)
    crowded(cluster, "a")
    stopped = cluster.stop("a")
    cluster.run(60)
    cluster.mangle = lambda source, target, message: False
    cluster.run(2_000)
    assert cluster.answer("a", stopped) is Acknowledged.YES
    cluster.kill("a")
    assert all(cluster.values(key) for key in keys)


def test_what_is_wanted_again_and_again_waits_once() -> None:
    """Passes that follow each other faster than a peer takes what it wants make no list longer."""
    cluster, keys = filled("ab", 50, repair_window_bytes=0)
    cluster.servers["b"].table._sessions_max = 0
    for key in keys:
        cluster.servers["b"].table.drop(key)
    for _ in range(5):
        cluster.servers["a"].node._repair.start()
        cluster.servers["b"].node._repair.start()
        cluster.run(200)
    assert len(cluster.servers["a"].node.peers["b"].repairing) == len(keys)


def test_a_pass_tells_of_uses_that_a_peer_may_not_know_of() -> None:
    """Later ones than those it was told of, once each, and no end; in buckets that differ everything is offered."""
    peer, key, other = Peer("b", 3, 0), bytes(16), bytes([1]) * 16
    going = repair._Pass([], {"b": {1}}, {peer: 100}, began_ms=0, announces=False)
    going.count("b", key, 5, 100)
    going.count("b", key, 6)
    assert not going.touched and not going.offers
    going.count("b", key, 7, 101)
    going.count("b", other, 8, 102)
    assert going.touched == {"b": [(key, 101), (other, 102)]}
    assert going.offers == {"b": [other + (8).to_bytes(8, "big")]}
    assert going.digests["b"][:2] == [5 ^ 6 ^ 7, 8] and not any(going.digests["b"][2:])
    going.count("c", key, 9, 500)
    assert "c" not in going.touched, "who was not there when the pass began is told by the next"


def test_passes_go_on_and_on() -> None:
    """Slowly all the time, each time with a little chance, though nothing happens."""
    cluster = Cluster("ab", repair_every_ms=100)
    cluster.run(500)
    node = cluster.servers["a"].node
    passes, digests = node.counts["repair_passes"], len(list(cluster.messages(Digest, "a")))
    cluster.run(1_300)
    assert len(list(cluster.messages(Digest, "a"))) - digests in range(10, 14)
    assert node.counts["repair_passes"] - passes >= 10


def test_nothing_is_left_of_a_link_that_is_lost() -> None:
    """Neither what its peer said, nor what was offered over it or still is to be."""
    cluster = Cluster("ab")
    going = cluster.servers["a"].node._repair
    peer = cluster.servers["a"].node.peers["b"]
    going._offer(peer, [bytes(24)] * (repair.OFFERED_ENTRIES * (repair.OFFERS_MAX + 1)))
    going.take_digest(peer, Digest(bytes(8 * BUCKETS)))
    going.take_differ(peer, Differ(b"\x01"))
    assert all("b" in known for known in (going._offers, going._unoffered, going._theirs, going._listing))
    assert not going.is_idle
    going.link_lost("b")
    assert not any("b" in known for known in (going._offers, going._unoffered, going._theirs, going._listing))


def test_a_copy_that_has_left_starts_no_pass() -> None:
    """Two passes offer it before the first offer is answered: the answer to the second finds nothing, as it should."""
    cluster, (key,) = filled("abc", 1, copies=2, delay_ms=20)
    (proxy,) = set("abc") - set(cluster.servers["a"].node.placement.holders(key))
    held = cluster.asked(proxy, key).record
    assert held is not None
    server = cluster.servers[proxy]
    server.table.put(key, held)
    passes = server.node.counts["repair_passes"]
    for _ in range(2):
        server.node._repair.start(announces=False)
        cluster.run(5)
    assert server.node.counts["repair_passes"] == passes + 2 and cluster.held(proxy, key) is not None
    cluster.run(300)
    assert cluster.held(proxy, key) is None
    assert len(list(cluster.messages(Wanted, "", proxy))) == 4, "each of the two holders answered each offer"
    assert server.node.counts["repair_passes"] == passes + 2


def test_a_pass_waits_while_offers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they bring would only be found missing again; not for ever, since the peer may take very long to answer."""
    monkeypatch.setattr(repair, "OFFERS_MAX", 0)
    cluster, _ = filled("ab", 5, repair_every_ms=1_000_000)
    cluster.run(3_000)
    node = cluster.servers["a"].node
    passes = node.counts["repair_passes"]
    node._repair._offer(node.peers["b"], [bytes(24)])
    node._repair.start()
    cluster.run(repair.PUT_OFF_MS)
    assert node.counts["repair_passes"] == passes
    cluster.run(100)
    assert node.counts["repair_passes"] == passes + 1


def test_one_record_puts_no_pass_off() -> None:
    """It is a change, and not the beginning of a stream."""
    cluster, _ = filled("ab", 5, repair_every_ms=1_000_000)
    cluster.run(3_000)
    node = cluster.servers["a"].node
    passes = node.counts["repair_passes"]
    node._repair.records_came(1)
    node._repair.start()
    cluster.run(5)
    assert node.counts["repair_passes"] == passes + 1


def test_the_first_pass_of_a_server_that_was_just_started_is_not_put_off() -> None:
    """Though its clock is near zero: nothing has come to it yet."""
    node = make_node()
    node._repair.start()
    node.handle(Woken(), repair.PASS_PAUSE_MS)
    assert node.counts["repair_passes"] == 1


def test_who_is_being_seeded_keeps_nobody_else_from_being_compared_with() -> None:
    """The newcomer is left out, whatever its place among the peers."""
    cluster, _ = filled("abc", 5, repair_every_ms=1_000_000)
    cluster.run(3_000)
    going = cluster.servers["a"].node._repair
    for name in "bc":
        cluster.seen.clear()
        going._seeding._seeded[name] = cluster.servers["a"].node.peers[name]
        going.start()
        cluster.run(repair.PUT_OFF_MS + 100)
        going._seeding.link_lost(name)
        assert {
            target for source, target, message in cluster.seen if source == "a" and isinstance(message, Digest)
        } == ({"b", "c"} - {name})


def test_uses_are_told_as_a_pass_goes_on() -> None:
    """Some of many at a time."""
    cluster, keys = filled("ab", 2 * repair.PASS_KEYS + 1, repair_every_ms=1_000_000)
    cluster.run(3_000)
    node = cluster.servers["a"].node
    node._touches.forget("b")
    cluster.seen.clear()
    node._repair.start()
    cluster.run(300)
    told = [[key for key, _ in message.items] for message in cluster.messages(Touched, "a", "b")]
    assert [len(piece) for piece in told] == [repair.PASS_KEYS, repair.PASS_KEYS, 1]
    assert {key for piece in told for key in piece} == set(keys)


def test_what_is_held_in_an_older_state_is_not_confirmed() -> None:
    """The record was written to after it was sent: nobody has that yet."""
    cluster, (key,) = filled("ab", 1)
    server = cluster.servers["a"]
    sent, held = server.table.get(key), cluster.held("a", key)
    assert sent is not None and held is not None
    server.table.put(key, held.write(server.writer, {"z": b"\x01"}, now_ms=cluster.now_ms)[0])
    server.node._pushes._doubt(key)
    server.node._repair._took("b", key, sent)
    assert not server.node.is_confirmed(key)
    now = server.table.get(key)
    assert now is not None
    server.node._repair._took("b", key, now)
    assert server.node.is_confirmed(key)


def test_what_a_holder_holds_is_nobody_s_to_take() -> None:
    """A server that became a holder while its copy was offered keeps it, and offers it to nobody any more."""
    cluster, (key,) = filled("abc", 1, copies=2, repair_every_ms=1_000_000)
    first, second = cluster.servers["a"].node.placement.holders(key)
    (proxy,) = set("abc") - {first, second}
    held = cluster.asked(proxy, key).record
    assert held is not None
    server = cluster.servers[proxy]
    server.table.put(key, held)
    cluster.mangle = lambda source, target, message: isinstance(message, Offered)
    server.node._repair.start(announces=False)
    cluster.run(5)
    assert server.node._repair._quiet[key][1] == {first, second}
    cluster.kill(second)
    while not server.node.placement.is_holder(key):
        cluster.run(1)
    digest = server.node._repair._quiet[key][0]
    for name in (first, second):
        server.node._repair._has(name, key, digest)
    assert cluster.held(proxy, key) is not None
    cluster.mangle = lambda source, target, message: False
    cluster.run(500)
    assert not server.node._repair._quiet and set(cluster.values(key)) == {first, proxy}


def test_a_copy_with_a_change_on_its_way_does_not_leave() -> None:
    """Every holder has what was offered; what this server is in the middle of writing is not theirs yet."""
    cluster, (key,) = filled("abc", 1, copies=2, repair_every_ms=1_000_000)
    (proxy,) = set("abc") - set(cluster.servers["a"].node.placement.holders(key))
    held = cluster.asked(proxy, key).record
    assert held is not None
    server = cluster.servers[proxy]
    server.table.put(key, held)
    server.node._repair.start(announces=False)
    server.node._pushes._open[key] = []
    cluster.run(100)
    assert cluster.held(proxy, key) is not None
    del server.node._pushes._open[key]
    server.node._repair.start(announces=False)
    cluster.run(100)
    assert cluster.held(proxy, key) is None


def test_an_end_that_only_one_knows_of_comes_to_all() -> None:
    """Nobody else holds anything of the session, holder or not: its copy may still be on its way."""
    cluster, (key,) = filled("abc", 1, copies=2)
    held = cluster.held(cluster.servers["a"].node.placement.holders(key)[0], key)
    assert held is not None
    for server in cluster.servers.values():
        server.table.drop(key)
    cluster.servers["a"].table.put(key, held.end(ENDED, cluster.now_ms))
    cluster.run(13_000)
    assert [server.table.state(key) for server in cluster.servers.values()] == [ENDED] * 3


def test_a_link_that_came_back_is_a_reason_to_compare() -> None:
    """What was on its way when it broke may be lost, though everybody is where it was."""
    cluster, keys = filled("ab", 3, repair_every_ms=1_000_000)
    cluster.run(3_000)
    cluster.servers["b"].table.drop(keys[0])
    cluster.run(1_000)
    assert cluster.held("b", keys[0]) is None
    cluster.close("a", "b")
    cluster.run(500)
    assert same(cluster, keys)
