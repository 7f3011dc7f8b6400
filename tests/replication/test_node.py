"""A whole node: who hears of what, what time brings, and that nothing a peer sends makes it raise."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.backend import Acknowledged, Ended
from sessile.backend import Whole as Born
from sessile.record import ENDED, Record
from sessile.replication.events import (
    AddressesFound,
    Answer,
    ChangePushed,
    DialFailed,
    DrawWriter,
    FramesReceived,
    HangUp,
    LinkUp,
    Note,
    Send,
    StopAsked,
    Woken,
)
from sessile.replication.member import Stage
from sessile.replication.messages import (
    Acked,
    Answered,
    Beat,
    Changed,
    Denied,
    Digest,
    Goodbye,
    MemberInfo,
    Members,
    Pull,
    Told,
    TombstonesTold,
    Touched,
    Whole,
)
from sessile.replication.node import DRAIN_PAUSE_MS
from sessile.replication.pulls import NOT_SURE, RECORD
from sessile.replication.wire import LENGTH_BYTES, decode, encode
from tests.replication.cluster import Cluster, key_number
from tests.replication.test_links import ME, hello, make_node, say


def test_members_find_each_other_and_agree_who_holds_what() -> None:
    """A newcomer that knows one member is soon known to all, and all compute the same holders."""
    cluster = Cluster("abc")
    cluster._addresses = ("b",)
    cluster.start("d")
    cluster.run(1_500)
    placements = {server.node.placement.names for server in cluster.servers.values()}
    assert placements == {("a", "b", "c", "d")}
    assert len({server.node.placement.holders(b"k" * 16) for server in cluster.servers.values()}) == 1
    assert all(server.node.name == name for name, server in cluster.servers.items())


def test_silence_is_suspect_and_then_dead_and_a_voice_revives() -> None:
    """A member that is cut off leaves placement after a second, and is back when it is heard again."""
    cluster = Cluster("abc", strategy="all-to-all")
    seen = []
    cluster.cut("c", "ab")
    for ms in (600, 800, 1_500):
        cluster.run(ms)
        seen.append("".join(cluster.servers["a"].node.placement.names))
        if ms == 800:
            cluster.heal()
    assert seen == ["abc", "ab", "abc"]
    told = [note.about for note in cluster.servers["a"].notes if isinstance(note, Note) and note.event == "member"]
    assert {"suspect", "dead", "alive"} <= {about["after"] for about in told if about["name"] == "c"}


def test_a_quiet_link_beats() -> None:
    """Nobody has anything to say: a beat four times a second, about, in each direction."""
    cluster = Cluster("ab")
    cluster.seen.clear()
    cluster.run(2_000)
    assert 6 <= len(list(cluster.messages(Beat, "a", "b"))) <= 10


def test_a_member_that_says_goodbye_is_not_looked_for() -> None:
    """It handed over and went: nobody waits for it, and who asks for the impossible twice is told no."""
    cluster = Cluster("abc", copies=2)
    ticket = cluster.stop("c")
    again = cluster.stop("c")
    assert cluster.answer("c", again) is Acknowledged.NO
    cluster.run(200)
    assert cluster.answer("c", ticket) is Acknowledged.YES
    assert cluster.servers["c"].node.is_leaving
    assert list(cluster.messages(Goodbye, "c")) and list(cluster.messages(Members, "c"))
    assert cluster.servers["a"].node.placement.names == ("a", "b")
    cluster.run(10)
    stages = {info.name: info.stage for info in cluster.servers["a"].node.membership.infos()}
    assert stages == {"a": Stage.PRESENT, "b": Stage.PRESENT, "c": Stage.GONE}


def test_who_was_answered_just_now_may_tell_of_more_before_its_node_leaves() -> None:
    """A rotation ends the old session once the new one is held, though all that was known of is handed over by then."""
    cluster = Cluster("ab")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    stopped = cluster.stop("a")
    for _ in range(20):
        answer = cluster.answer("a", cluster.push("a", key, None))
        assert answer is Acknowledged.YES and cluster.answer("a", stopped) is None
        cluster.run(5)
    cluster.run(40)
    assert cluster.answer("a", stopped) is Acknowledged.YES


def test_a_member_alone_leaves_at_once_and_one_that_cannot_hand_over_in_time() -> None:
    """With nobody to take its sessions it goes all the same, and says that it had some."""
    cluster = Cluster("a")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    ticket = cluster.stop("a")
    cluster.run(50)
    assert cluster.answer("a", ticket) is Acknowledged.NO
    cluster = Cluster("ab", drain_ms=300)
    cluster.servers["b"].table._sessions_max = 0
    cluster.create("a", cluster.first_key("a"), x=1, ack="none")
    ticket = cluster.stop("a")
    cluster.run(200)
    assert cluster.answer("a", ticket) is None
    cluster.run(200)
    assert cluster.answer("a", ticket) is Acknowledged.NO


def test_members_that_all_leave_wait_for_nobody() -> None:
    """A whole service is stopped: there is no one to hand over to, and each goes as soon as it knows."""
    cluster = Cluster("abc", copies=2)
    for name in "abc":
        cluster.create(name, cluster.first_key(name), x=1)
    tickets = {name: cluster.stop(name) for name in "abc"}
    cluster.run(100)
    assert all(cluster.answer(name, ticket) is not None for name, ticket in tickets.items())


def test_what_is_under_way_is_told() -> None:
    """For status pages: questions, changes, bytes."""
    cluster = Cluster("ab", delay_ms=5)
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    waiting = cluster.servers["a"].node.waiting
    assert waiting["pushes"] == 1 and waiting["outstanding_bytes"] > 50 and waiting["pulls"] == 0
    assert not cluster.servers["a"].node.is_settled(key)
    cluster.run(20)
    assert cluster.servers["a"].node.waiting == {"pulls": 0, "pushes": 0, "outstanding_bytes": 0}


def test_touches_of_many_sessions_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One message to each holder for all that was touched meanwhile, in pieces of a limited size."""
    monkeypatch.setattr("sessile.replication.touches.TOUCHES_MAX", 4)
    cluster = Cluster("abc", copies=2)
    keys = [cluster.first_key("a", start=50 * number) for number in range(10)]
    for key in keys:
        cluster.create("a", key, x=1)
    cluster.run(20)
    for key in keys:
        cluster.touch("a", key)
    cluster.run(100)
    sizes = [len(message.items) for message in cluster.messages(Touched, "a")]
    assert sum(sizes) == 10 and max(sizes) <= 4
    cluster.touch("a", keys[0])
    cluster.kill(next(name for name in cluster.servers["a"].node.placement.others(keys[0])))
    cluster.run(100)


def test_a_peer_that_breaks_the_protocol_is_hung_up_and_comes_back() -> None:
    """An acknowledgement or denial of nothing, an unknown reason: the link closes, counted, and another is made."""
    for message in (Acked(99), Denied(1, b"", 0), Denied(1, b"", 7)):
        cluster = Cluster("ab")
        node = cluster.servers["a"].node
        link = node.peers["b"].link
        effects = node.handle(FramesReceived(link, (encode(message)[LENGTH_BYTES:],) * 2), cluster.now_ms)
        assert [effect.link for effect in effects if isinstance(effect, HangUp)] == [link]
        assert node.counts["protocol_errors"] == 1 and not node.peers
        cluster.close("a", "b")
        cluster.run(500)
        assert set(node.peers) == {"b"}


def test_a_member_that_renewed_its_incarnation_moves_no_session() -> None:
    """The list changed; who holds what did not: no copies are compared, and what nobody has is still remembered."""
    cluster = Cluster("abc")
    node = cluster.servers["a"].node
    cluster.run(1_000)
    cluster.asked("a", b"k" * 16)
    before, passes = node.placement, node.counts["repair_passes"]
    cluster.seen.clear()
    frame = encode(Members((MemberInfo("b", "host-b", 2),)))[LENGTH_BYTES:]
    node.handle(FramesReceived(node.peers["b"].link, (frame,)), cluster.now_ms)
    cluster.run(20)
    assert node.membership.infos()[1:][0].incarnation == 2
    assert node.placement is before and node.counts["repair_passes"] == passes
    cluster.asked("a", b"k" * 16)
    assert not list(cluster.messages(Pull))


def test_a_leaver_waits_for_a_slow_hand_over_without_beginning_anew() -> None:
    """While offers are on their way no further pass is begun; it goes when they are answered, and all is there."""
    cluster = Cluster("ab", copies=1, delay_ms=60)
    keys = [cluster.first_key("b", start=50 * number) for number in range(5)]
    for key in keys:
        cluster.create("b", key, x=1)
    cluster.run(500)
    passes = cluster.servers["b"].node.counts["repair_passes"]
    ticket = cluster.stop("b")
    cluster.run(200)
    assert cluster.answer("b", ticket) is None
    assert cluster.servers["b"].node.counts["repair_passes"] - passes <= 2
    cluster.run(1_000)
    assert cluster.answer("b", ticket) is Acknowledged.YES
    assert all(cluster.held("a", key) is not None for key in keys)


@given(frames=st.lists(st.binary(max_size=60), max_size=5), is_greeted=st.booleans())
def test_whatever_arrives_nothing_is_raised(frames: list[bytes], *, is_greeted: bool) -> None:
    """Random bytes before and after the greeting: at the most a closed link."""
    cluster = _PAIR
    node = cluster.servers["a"].node
    link = node.peers["b"].link if is_greeted and "b" in node.peers else 12_345
    node.handle(FramesReceived(link, tuple(frames)), cluster.now_ms)
    cluster.close("a", "b")
    cluster.run(150)


_PAIR = Cluster("ab")


def test_a_newcomer_is_sure_of_nothing_before_it_has_met_everybody() -> None:
    """It is sent copies at once; somebody whom it has not met may end such a session and not know of it."""
    node = make_node()
    key = bytes(16)
    third = MemberInfo("c", "host-c", 1)
    node.handle(AddressesFound(("b",)), 0)
    node.handle(LinkUp(1), 1)
    say(node, hello(members=(ME, third), links=(1,)), now_ms=2)
    say(node, TombstonesTold(2, (), is_last=True), now_ms=3)
    assert node.placement.is_holder(key) and not node.is_sure(key, 3)
    ticket = 1
    ended = Record.create(now_ms=0, idle_ms=10_000, deadline_ms=100_000).end(ENDED, 3)
    node._context.replica.table.put(key, ended)
    asked: list[object] = list(node.handle(ChangePushed(ticket, key, Ended(key, ended), "one"), 4))
    asked += say(node, Acked(1), now_ms=5)
    assert not any(isinstance(effect, Answer) for effect in asked)
    effects = node.handle(DialFailed("c", is_refused=True), 6)
    assert Answer(ticket, Acknowledged.YES) in effects and node.is_sure(key, 6)


def test_what_is_counted_is_what_was_said() -> None:
    """Every question, answer, change and record that went over a link counts once, and so does every end."""
    cluster = Cluster("abc", copies=2)
    keys = [key_number(number) for number in range(12)]
    for number, key in enumerate(keys):
        cluster.create("abc"[number % 3], key, n=number)
    cluster.run(2_500)
    for name in "abc":
        for key in keys:
            cluster.asked(name, key)
        cluster.asked(name, key_number(99))
    for name in "ab":
        for key in keys:
            if cluster.held(name, key) is not None:
                cluster.write(name, key, m=1)
    cluster.run(200)
    held = [name for name in "abc" if cluster.held(name, keys[0]) is not None]
    cluster.end(held[0], keys[0])
    cluster.run(200)
    total = sum((server.node.counts for server in cluster.servers.values()), Counter[str]())
    for kind, counts in (
        (Pull, ("questions",)),
        (Answered, ("answers",)),
        (Told, ("told",)),
        (Changed, ("applied", "known", "need")),
    ):
        assert sum(total[count] for count in counts) == len(list(cluster.messages(kind))) > 0, counts
    assert total["ends_learned"] == 2
    placement = cluster.servers["a"].node.placement
    strays = [key for number, key in enumerate(keys) if "abc"[number % 3] not in placement.holders(key)]
    assert total["quiet_drops"] == len(strays) > 0, "made where it is not held, and let go of there"


@pytest.mark.parametrize("has_room", [False, True])
def test_an_answer_makes_room_for_repair(*, has_room: bool) -> None:
    """What repair has still to send goes on when a change that filled the window was refused, or confirmed."""
    cluster = Cluster("ab", copies=2, repair_window_bytes=100)
    key, other = key_number(1), key_number(2)
    cluster.create("a", other, x=1)
    cluster.run(10)
    cluster.servers["b"].table._sessions_max = 2 if has_room else 1
    cluster.create("a", key, x="y" * 1_000)
    peer = cluster.servers["a"].node.peers["b"]
    peer.repairing[other] = None
    assert peer.outstanding_bytes > 100
    cluster.run(2)
    assert not peer.repairing
    cluster.run(2)
    assert (cluster.held("b", key) is not None) is has_room


def test_a_node_that_wrote_is_no_newcomer_any_more() -> None:
    """It has something to lose: nobody is to take it for empty."""
    node = make_node()
    assert node._links.is_fresh
    record = Record.create(now_ms=0, idle_ms=10_000, deadline_ms=100_000)
    node._context.replica.table.put(bytes(16), record)
    node.handle(ChangePushed(1, bytes(16), Born(bytes(16), record), "one"), 1)
    assert not node._links.is_fresh


def test_a_pass_waits_while_records_stream() -> None:
    """Several records at once are the beginning of more: what is on its way would only be found missing."""
    cluster = Cluster("ab", copies=2)
    cluster.create("a", key_number(1), x=1)
    cluster.create("a", key_number(2), x=1)
    cluster.run(200)
    node = cluster.servers["b"].node
    passes = node.counts["repair_passes"]
    items = tuple((key_number(n), cluster.servers["a"].table.get(key_number(n)) or b"") for n in (1, 2))
    peer = cluster.servers["a"].node.peers["b"]
    cluster.servers["a"].node._context.send_sequenced(peer, Whole(cluster.now_ms, items), lambda: None, lambda _: None)
    for effect in cluster.servers["a"].node._context.take_effects():
        cluster._perform(cluster.servers["a"], effect)
    cluster.run(2)
    node._repair.start()
    cluster.run(50)
    assert node.counts["repair_passes"] == passes
    cluster.run(200)
    assert node.counts["repair_passes"] == passes + 1


def test_news_of_members_are_passed_on() -> None:
    """Whoever hears of a member tells all that it is linked to, and once."""
    node = make_node()
    for link, name in ((1, "b"), (2, "c")):
        node.handle(LinkUp(link), 0)
        say(node, hello(me=MemberInfo(name, name, 1), writer=link, members=()), link=link)
    news = Members((MemberInfo("d", "d", 3),))
    told = [
        (effect.link, decode(effect.frame[LENGTH_BYTES:])) for effect in say(node, news) if isinstance(effect, Send)
    ]
    assert [link for link, message in told if isinstance(message, Members)] == [1, 2]
    assert all("d" in {info.name for info in message.members} for _, message in told if isinstance(message, Members))
    assert not [effect for effect in say(node, news) if isinstance(effect, Send)]


def test_what_was_handed_over_counts_until_others_hold_it() -> None:
    """When members come or go, a node that leaves hands over anew."""
    cluster = Cluster("abc", copies=2)
    context = cluster.servers["a"].node._context
    context.handed[key_number(1)] = None
    cluster.run(100)
    assert context.handed
    cluster.kill("c")
    cluster.run(3_000)
    assert not context.handed


def test_a_lease_ends_at_its_last_moment() -> None:
    """A node whose lease is over at this very moment has stopped, is sure of nothing, and was away."""
    cluster = Cluster("ab")
    key = cluster.first_key("a")
    node = cluster.servers["a"].node
    ends_ms = node._pulse.ends_ms
    assert not node.has_stopped(ends_ms - 1) and node.is_sure(key, ends_ms - 1) and node.is_trusting
    assert node.has_stopped(ends_ms) and not node.is_sure(key, ends_ms)
    context = node._context
    node._tombstones._settled = lambda: None
    node.handle(AddressesFound(()), ends_ms - 1)
    assert node.counts["absences"] == 0
    node._pulse.ends_ms = ends_ms
    node.handle(AddressesFound(()), ends_ms)
    assert node.counts["absences"] == 1 and not node.is_trusting
    node.handle(AddressesFound(()), ends_ms - 100)
    assert context.now_ms == ends_ms, "time never goes back"


def test_trust_needs_both_a_lease_and_everybody_s_word() -> None:
    """Neither alone will do."""
    cluster = Cluster("ab")
    node = cluster.servers["a"].node
    node._context.is_settled_in = False
    assert not node.is_trusting and not node.is_sure(cluster.first_key("a"), cluster.now_ms)
    node._context.is_settled_in = True
    node._pulse.distrust()
    assert not node.is_trusting


def test_tombstones_are_kept_while_somebody_is_away() -> None:
    """Whoever comes back has still to learn of the ends."""
    cluster = Cluster("ab")
    keeps = cluster.servers["a"].table.keeps_tombstones
    assert keeps is not None and not keeps()
    cluster.cut("a", "b")
    cluster.run(2_000)
    assert keeps()


def test_what_starting_over_leaves() -> None:
    """No session and no trust, a new tag to write under, and links that greet anew; it is said how much went."""
    cluster = Cluster("ab")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(50)
    node = cluster.servers["a"].node
    born_ms = node._born_ms
    node.start_over(("b",))
    effects = node._context.take_effects()
    (note,) = (effect for effect in effects if isinstance(effect, Note) and effect.event == "starting over")
    assert note.about == {"sessions": 1, "side": ("b",)}
    assert sum(isinstance(effect, DrawWriter) for effect in effects) == 1
    assert sum(isinstance(effect, HangUp) for effect in effects) == 1
    assert cluster.held("a", key) is None and not node.is_trusting and not node.peers
    assert node._born_ms > born_ms and not node._tombstones._told_ms and node._links.is_fresh


def test_what_was_handed_over_a_link_that_broke_is_handed_over_anew() -> None:
    """It may not have arrived."""
    cluster = Cluster("ab")
    context = cluster.servers["a"].node._context
    context.handed[key_number(1)] = None
    cluster.close("a", "b")
    assert not context.handed


def test_a_last_copy_is_held_again_and_offered() -> None:
    """Nobody else is asked to compare: only those who hold it hear of it."""
    cluster = Cluster("abc", copies=2)
    key = cluster.first_key("b")
    cluster.create("b", key, x=1)
    cluster.run(50)
    record = cluster.held("b", key)
    assert record is not None
    (stray,) = set("abc") - set(cluster.servers["a"].node.placement.holders(key))
    for name in "abc":
        cluster.servers[name].table.drop(key)
    node = cluster.servers[stray].node
    passes, digests = node.counts["repair_passes"], len(list(cluster.messages(Digest, stray)))
    node._adopt(key, record)
    assert cluster.held(stray, key) is not None
    cluster.run(300)
    assert node.counts["repair_passes"] > passes and len(list(cluster.messages(Digest, stray))) == digests
    assert set(cluster.values(key)) == set(node.placement.holders(key))


def test_what_a_member_was_told_before_it_started_anew_does_not_count() -> None:
    """Neither of uses nor of changes."""
    cluster = Cluster("ab", strategy="all-to-all")
    key = cluster.first_key("a")
    node = cluster.servers["a"].node
    never_ms = node._touches.since_ms("c")
    node._touches.begins_empty("b")
    cluster.cut("a", "b")
    cluster.create("a", key, x=1)
    (push,) = node._pushes._open[key]
    push.confirmed.add("b")
    node.peer_restarted("b")
    assert node._touches.since_ms("b") == never_ms and not push.confirmed


def test_a_leaver_hands_over_what_comes_while_it_leaves() -> None:
    """Its last pass is over by then: another one follows."""
    cluster = Cluster("abc", copies=2)
    cluster.create("a", cluster.first_key("a"), x=1)
    cluster.run(50)
    record = cluster.held("a", cluster.first_key("a"))
    assert record is not None
    ticket = cluster.stop("a")
    node = cluster.servers["a"].node
    while not node._repair.is_idle:
        cluster.run(1)
    assert cluster.answer("a", ticket) is None
    key = cluster.first_key("b")
    cluster.servers["a"].table.put(key, record)
    cluster.run(500)
    assert cluster.answer("a", ticket) is Acknowledged.YES and set(cluster.values(key)) >= {"b", "c"}


def test_a_node_that_has_left_answers_for_no_session() -> None:
    """Peers answer logouts without it from its goodbye on, so its copies may be of sessions that have ended."""
    cluster = Cluster("ab")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(50)
    ticket = cluster.stop("a")
    node = cluster.servers["a"].node
    link = node.peers["b"].link
    said = []
    for _ in range(2):
        effects = node.handle(FramesReceived(link, (encode(Pull(1, key, (), None))[LENGTH_BYTES:],)), cluster.now_ms)
        sent = [decode(effect.frame[LENGTH_BYTES:]) for effect in effects if isinstance(effect, Send)]
        said += [message.status for message in sent if isinstance(message, Answered)]
        cluster.run(200)
        assert cluster.answer("a", ticket) is Acknowledged.YES
    assert said == [RECORD, NOT_SURE]


def test_a_change_of_who_holds_what_is_counted() -> None:
    """Once, however much is said of the member that went."""
    cluster = Cluster("abc", copies=2)
    before = cluster.servers["a"].node.counts["view_changes"]
    cluster.kill("c")
    cluster.run(2_000)
    assert cluster.servers["a"].node.counts["view_changes"] == before + 1


def test_a_server_that_was_just_started_and_holds_nothing_leaves_at_once() -> None:
    """Though its clock is near zero: it has answered nobody yet."""
    node = make_node()
    node.handle(StopAsked(1), 0)
    assert Answer(1, Acknowledged.YES) in node.handle(Woken(), DRAIN_PAUSE_MS)


def test_a_peer_that_was_sent_too_little_has_caught_up_when_it_has_acknowledged_all() -> None:
    """Not before: then what it was not sent is looked for."""
    cluster = Cluster("ab", delay_ms=5, repair_every_ms=1_000_000)
    node = cluster.servers["a"].node
    peer, passes = node.peers["b"], node.counts["repair_passes"]
    for number in range(2):
        cluster.create("a", key_number(number), x=1)
        cluster.run(3)
    peer.is_overflowed = True
    while len(peer.outstanding) == 2:
        cluster.run(1)
    assert peer.outstanding and peer.is_overflowed
    while peer.outstanding:
        cluster.run(1)
    assert not peer.is_overflowed
    cluster.run(5)
    assert node.counts["repair_passes"] == passes + 1


def test_a_silent_link_is_hung_up() -> None:
    """Nobody said that it broke."""
    cluster = Cluster("ab")
    cluster.cut("a", "b")
    cluster.run(400)
    assert set(cluster.servers["a"].node.peers) == {"b"}
    cluster.run(800)
    assert not cluster.servers["a"].node.peers and not cluster.servers["a"].links


def test_a_greeting_and_what_follows_it_may_come_together() -> None:
    """The network decides how much arrives at once."""
    node = make_node()
    node.handle(LinkUp(1), 0)
    frames = tuple(encode(message)[LENGTH_BYTES:] for message in (hello(), Goodbye()))
    node.handle(FramesReceived(1, frames), 1)
    assert set(node.peers) == {"b"} and node.counts["protocol_errors"] == 0
