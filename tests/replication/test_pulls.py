"""Questions: who is asked, what ends them, and what is said when nobody has what the browser has seen."""

from __future__ import annotations

from typing import Any

import pytest

from sessile.backend import Pulled, PullStatus
from sessile.delta import Delta
from sessile.errors import WireError
from sessile.record import ENDED, LIVE, Stamp
from sessile.replication.events import FramesReceived, SessionTouched
from sessile.replication.messages import Answered, Message, Pull, TombstonesTold, Whole
from sessile.replication.pulls import CURRENT, NONE, NOT_SURE, RECORD
from sessile.replication.wire import LENGTH_BYTES, encode
from tests.replication.cluster import Cluster, fields_of, key_number


def with_session(names: str = "abc", **config: Any) -> tuple[Cluster, bytes, str, str]:
    """A session of primary and backup, its key, its backup, and a server that holds nothing of it."""
    cluster = Cluster(names, copies=2, **{"pull_timeout_ms": 250, **config})
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(10)
    cluster.seen.clear()
    order = cluster.servers["a"].node.placement.order(key)
    return cluster, key, order[1], order[2] if len(order) > 2 else ""


def test_one_holder_is_asked_and_answers_with_the_record() -> None:
    """A server that holds nothing asks one of the holders, and keeps no copy in its table."""
    cluster, key, _, proxy = with_session()
    pulled = cluster.asked(proxy, key)
    assert (pulled.status, fields_of(pulled.record)) == (PullStatus.RECORD, {"x": 1})
    assert len(list(cluster.messages(Pull))) == 1
    assert cluster.held(proxy, key) is None


def test_the_next_question_names_what_is_kept_and_gets_only_what_is_new() -> None:
    """Nothing new: the answer is `current` and holds no field. Something new: only that."""
    cluster, key, _, proxy = with_session()
    cluster.asked(proxy, key)
    assert cluster.asked(proxy, key).status is PullStatus.RECORD
    cluster.write("a", key, y="new")
    cluster.run(5)
    pulled = cluster.asked(proxy, key)
    assert fields_of(pulled.record) == {"x": 1, "y": "new"}
    answers = list(cluster.messages(Answered))
    assert [answer.status for answer in answers] == [RECORD, CURRENT, RECORD]
    assert b"new" in answers[2].record and b"x" not in answers[2].record[-12:]
    assert [message.have is None for message in cluster.messages(Pull)] == [True, False, False]


def test_a_holder_that_lacks_what_the_browser_saw_asks_the_others() -> None:
    """The backup missed the write: it hears of it from the primary, whose heads the browser presents."""
    cluster, key, backup, _ = with_session()
    cluster.cut("a", backup)
    cluster.write("a", key, y=2)
    record = cluster.held("a", key)
    assert record is not None
    cluster.heal()
    pulled = cluster.asked(backup, key, record.heads)
    assert fields_of(pulled.record) == {"x": 1, "y": 2}


def test_a_copy_that_arrives_meanwhile_ends_the_question() -> None:
    """The write comes by its own way while the question is under way, and nobody's answer is waited for."""
    cluster, key, backup, _ = with_session(pull_timeout_ms=5_000)
    cluster.cut(backup, "".join(set("abc") - {"a", backup}))
    cluster.mangle = lambda source, target, message: isinstance(message, Answered)
    cluster.write("a", key, y=2)
    record = cluster.held("a", key)
    assert record is not None
    assert fields_of(cluster.asked(backup, key, record.heads, within_ms=40).record) == {"x": 1, "y": 2}


def test_a_holder_that_takes_long_is_not_the_only_one_asked() -> None:
    """After hedge_ms the next holder is asked as well, and its answer is good enough."""
    cluster, key, backup, proxy = with_session()
    cluster.cut(proxy, "a")
    pulled = cluster.asked(proxy, key, within_ms=60)
    assert fields_of(pulled.record) == {"x": 1}
    cluster.cut(proxy, backup)
    assert cluster.asked(proxy, key).status is PullStatus.UNREACHABLE
    counts = cluster.servers[proxy].node.counts
    assert (counts["hedged"], counts["pull_timeouts"]) == (2, 1)


def test_what_was_asked_over_a_lost_link_is_asked_anew() -> None:
    """A server wakes to links that the others have closed: its question goes out again once they are back."""
    cluster, key, backup, proxy = with_session(pull_timeout_ms=1_000)
    cluster.cut(proxy, "a" + backup)
    ticket = cluster.pull(proxy, key)
    cluster.run(50)
    assert len(list(cluster.messages(Pull))) == 0
    cluster.close(proxy, "a")
    cluster.close(proxy, backup)
    cluster.heal()
    cluster.run(200)
    answer = cluster.answer(proxy, ticket)
    assert isinstance(answer, Pulled) and fields_of(answer.record) == {"x": 1}


def test_a_server_that_was_stopped_blames_nobody_for_the_silence() -> None:
    """Its question was under way for much longer than pull_timeout, by its own fault: it waits on, and is answered."""
    cluster, key, _, proxy = with_session()
    ticket = cluster.pull(proxy, key)
    cluster.servers[proxy].is_stopped = True
    cluster.run(3_000)
    cluster.servers[proxy].is_stopped = False
    cluster.run(200)
    answer = cluster.answer(proxy, ticket)
    assert isinstance(answer, Pulled) and fields_of(answer.record) == {"x": 1}
    assert not cluster.servers[proxy].node.counts["pull_timeouts"]


def test_the_same_question_is_asked_once() -> None:
    """Whoever asks for the same while an answer is on its way waits for that one."""
    cluster, key, _, proxy = with_session()
    tickets = [cluster.pull(proxy, key) for _ in range(5)]
    cluster.run(10)
    assert len(list(cluster.messages(Pull))) == 1
    assert len({id(cluster.answer(proxy, ticket)) for ticket in tickets}) == 1


def test_who_had_nothing_is_asked_again_for_one_who_asks_later() -> None:
    """One server said that it has nothing, and got a copy while another one's answer is waited for."""
    cluster, key, *_ = with_session()
    born = cluster.held("a", key)
    assert born is not None
    other = key_number(12_345)
    cluster.mangle = lambda source, target, message: source == "a" and isinstance(message, Answered)
    tickets = [cluster.pull("b", other)]
    cluster.run(100)
    assert [message.status for message in cluster.messages(Answered)][-1:] == [NONE]
    cluster.servers["c"].table.put(other, born)
    tickets.append(cluster.pull("b", other))
    cluster.run(50)
    for ticket in tickets:
        pulled = cluster.answer("b", ticket)
        assert isinstance(pulled, Pulled) and pulled.status is PullStatus.RECORD


def test_an_end_is_an_answer() -> None:
    """Whatever the browser saw: who hears that the session ended asks nobody else."""
    cluster, key, _, proxy = with_session()
    record = cluster.held("a", key)
    assert record is not None
    cluster.servers["a"].table.put(key, record.end(ENDED, cluster.now_ms))
    cluster.cut(proxy, cluster.servers["a"].node.placement.order(key)[1])
    pulled = cluster.asked(proxy, key, (Stamp(9, 9),), within_ms=60)
    assert pulled.record is not None and pulled.record.state == ENDED


def test_nobody_has_it_is_said_when_everybody_said_so_and_remembered() -> None:
    """The second question asks nobody; it does ten seconds later, when somebody came, or with heads that were written since."""
    cluster, *_ = with_session()
    key = key_number(12_345)
    assert cluster.asked("b", key).status is PullStatus.NONE
    asked = len(list(cluster.messages(Pull)))
    assert cluster.asked("b", key).status is PullStatus.NONE
    assert len(list(cluster.messages(Pull))) == asked == 2
    assert cluster.servers["b"].node.counts["negatives"] == 1
    cluster.run(10_001)
    assert cluster.asked("b", key).status is PullStatus.NONE
    assert len(list(cluster.messages(Pull))) == 2 * asked
    assert cluster.asked("b", key, (Stamp(1, 5),)).status is PullStatus.NONE
    assert len(list(cluster.messages(Pull))) == 3 * asked


def test_what_a_question_under_way_has_been_answered_is_given_to_others() -> None:
    """Found by simulation: the holders were gone, the last copy lay in a question that waited, and others heard of none."""
    cluster, key, backup, proxy = with_session()
    cluster.mangle = lambda source, target, message: (source, target) == (proxy, backup) and isinstance(message, Pull)
    cluster.pull(proxy, key, (Stamp(50, 5),))
    cluster.run(10)
    for holder in ("a", backup):
        cluster.servers[holder].table.drop(key)
    pulled = cluster.asked("a", key)
    assert cluster.servers[proxy].node.waiting["pulls"], "it still waits"
    assert pulled.status is PullStatus.RECORD and fields_of(pulled.record) == {"x": 1}


def test_while_somebody_who_may_have_it_cannot_be_asked_nobody_says_that_it_is_not() -> None:
    """Cut off from one member: too few answered. Its process gone for good: nobody has it."""
    cluster, *_ = with_session()
    cluster.cut("c", "ab")
    cluster.run(1_200)
    assert cluster.asked("a", key_number(1)).status is PullStatus.UNREACHABLE
    cluster.heal()
    cluster.kill("c")
    cluster.run(1_500)
    assert cluster.asked("a", key_number(2)).status is PullStatus.NONE


def test_what_nobody_has_any_more_is_served_as_it_is_left() -> None:
    """All have answered and none covers what the browser saw: the newest there is, which its reader sees is stale."""
    cluster, key, backup, proxy = with_session()
    pulled = cluster.asked(proxy, key, (Stamp(50, 5),))
    assert pulled.status is PullStatus.RECORD and fields_of(pulled.record) == {"x": 1}
    pulled = cluster.asked(backup, key, (Stamp(50, 5),))
    assert pulled.record is not None and pulled.record.state == LIVE


def test_the_writer_that_the_browser_names_is_asked_early() -> None:
    """Among those that are no holders, whoever wrote what the browser saw comes first; all are asked at once."""
    cluster, key, _, _ = with_session("abcde")
    writer = cluster.servers["a"].node.placement.order(key)[4]
    record = cluster.asked(writer, key).record
    assert record is not None
    after, stamp = record.write(cluster.servers[writer].writer, {"z": b"\x05"}, now_ms=cluster.now_ms)
    cluster.mangle = lambda source, target, message: source == writer and not isinstance(message, Answered)
    cluster.servers[writer].table.put(key, after)
    cluster.push(writer, key, Delta.of(after, key, record, stamp, names=["z"], counted=()))
    asker = cluster.servers["a"].node.placement.order(key)[3]
    pulled = cluster.asked(asker, key, after.heads)
    assert pulled.record is not None and pulled.record.covers(after.heads)


def test_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many at once the answer is that nobody could be asked; what is kept and remembered has limits too."""
    monkeypatch.setattr("sessile.replication.pulls.WAITING_MAX", 1)
    monkeypatch.setattr("sessile.replication.pulls.NEGATIVES_MAX", 2)
    cluster, key, _, proxy = with_session(kept_bytes_max=10)
    cluster.pull(proxy, key)
    assert cluster.asked(proxy, key_number(3), within_ms=1).status is PullStatus.UNREACHABLE
    assert cluster.servers[proxy].node.counts["overflows"] == cluster.servers[proxy].node.waiting["pulls"] == 1
    cluster.run(10)
    pulls = cluster.servers[proxy].node._pulls
    assert pulls._kept_bytes == 0 and not pulls._kept
    for number in range(5, 9):
        cluster.asked(proxy, key_number(number))
    assert len(pulls._negatives) == 2


def test_an_answer_that_is_none_breaks_the_protocol_and_a_late_one_is_welcome_to_nobody() -> None:
    """No such status: the link is hung up. No record: as if it were not sure. To no question of ours: ignored."""
    cluster, key, _, proxy = with_session()
    node = cluster.servers[proxy].node
    peer = node.peers["a"]
    node._pulls.take_answered(peer, Answered(77, RECORD, 0, b""))
    cluster.pull(proxy, key)
    (number,) = node._pulls._questions
    asked = node.peers[node._pulls._questions[number].asked[0]]
    with pytest.raises(WireError):
        node._pulls.take_answered(asked, Answered(number, 9, 0, b""))
    node._pulls.take_answered(asked, Answered(number, RECORD, 0, b"nonsense"))
    assert node._pulls._questions[number].answered == {asked.name: NOT_SURE}
    assert node.counts["refused"] == 1


def test_who_is_not_sure_says_so() -> None:
    """A node just back from a pause answers for nothing that lives; the asker goes on to the next holder."""
    cluster, key, backup, proxy = with_session()
    cluster.servers["a"].node._pulls.is_trusting = False
    cluster.cut(proxy, backup)
    assert cluster.asked(proxy, key).status is PullStatus.UNREACHABLE
    cluster.heal()
    assert fields_of(cluster.asked(proxy, key).record) == {"x": 1}
    assert NOT_SURE in [message.status for message in cluster.messages(Answered, "a", proxy)]


def test_what_is_held_here_alone_is_all_there_is() -> None:
    """The copy of a server that is no holder is believed when everybody else has nothing, not while one is missing."""
    cluster, key, backup, proxy = with_session()
    record = cluster.asked(proxy, key).record
    assert record is not None
    cluster.servers[proxy].table.put(key, record)
    for name in ("a", backup):
        cluster.servers[name].table.drop(key)
    assert fields_of(cluster.asked(proxy, key).record) == {"x": 1}
    cluster.cut(proxy, "a")
    assert cluster.asked(proxy, key).status is PullStatus.UNREACHABLE


def test_two_who_know_different_things_ask_twice() -> None:
    """Questions about one session with other heads are apart: the end of one does not lose the other."""
    cluster, key, _, proxy = with_session()
    record = cluster.held("a", key)
    assert record is not None
    tickets = [
        cluster.pull(proxy, key),
        cluster.pull(proxy, key, record.heads),
        cluster.pull(proxy, key, (Stamp(9, 9),)),
    ]
    cluster.run(50)
    assert len({message.heads for message in cluster.messages(Pull)}) == 3
    assert [fields_of(cluster.answer(proxy, ticket).record) for ticket in tickets] == [{"x": 1}] * 3  # type: ignore[union-attr]
    assert not cluster.servers[proxy].node._pulls._by_key


def test_a_kept_copy_that_turns_out_to_be_the_last_is_held_again() -> None:
    """All holders lost the session: whoever kept it of an earlier question serves it, and gives it to the holders."""
    cluster, key, backup, proxy = with_session()
    cluster.asked(proxy, key)
    for name in ("a", backup):
        cluster.servers[name].table.drop(key)
    pulled = cluster.asked(proxy, key)
    assert (pulled.status, fields_of(pulled.record)) == (PullStatus.RECORD, {"x": 1})
    cluster.run(500)
    assert {name: fields_of(cluster.held(name, key)) for name in ("a", backup)} == {"a": {"x": 1}, backup: {"x": 1}}


def test_a_kept_copy_for_which_there_is_no_room_is_served_all_the_same() -> None:
    """A full server does not hold the last copy, nor forget it as if it did; its readers get it."""
    cluster, key, backup, proxy = with_session()
    cluster.asked(proxy, key)
    for name in ("a", backup):
        cluster.servers[name].table.drop(key)
    cluster.servers[proxy].table._sessions_max = 0
    assert fields_of(cluster.asked(proxy, key).record) == {"x": 1}
    cluster.run(500)
    assert cluster.values(key) == {}
    assert cluster.servers[proxy].node.counts["no_room"] == 1
    assert fields_of(cluster.asked(proxy, key).record) == {"x": 1}


def test_a_kept_copy_is_as_old_as_its_session_was_last_used() -> None:
    """By whoever was served here with it: the holders may go before they hear of the use."""
    cluster, key, backup, proxy = with_session()
    cluster.asked(proxy, key)
    cluster.run(1_000)
    used_ms = cluster.now_ms
    cluster.handle(proxy, SessionTouched(key, used_ms))
    for name in ("a", backup):
        cluster.servers[name].table.drop(key)
    record = cluster.asked(proxy, key).record
    assert record is not None and record.touched_ms == used_ms


def test_an_end_that_is_known_here_is_the_answer_though_nobody_else_remembers_it() -> None:
    """Neither NONE nor UNREACHABLE: the end is certain, whoever can be asked."""
    cluster, key, backup, proxy = with_session()
    record = cluster.held("a", key)
    assert record is not None
    cluster.servers[proxy].table.put(key, record.end(ENDED, cluster.now_ms))
    for name in ("a", backup):
        cluster.servers[name].table.drop(key)
    cluster.cut(proxy, "a")
    pulled = cluster.asked(proxy, key)
    assert pulled.status is PullStatus.RECORD
    assert pulled.record is not None and pulled.record.state == ENDED


def test_a_session_that_came_by_a_question_is_in_the_directory() -> None:
    """Its first holder lost it and asked for it: as soon as the engine has entered the answer, it is listed again."""
    cluster, key, *_ = with_session(directory=True)
    server = cluster.servers["a"]
    server.table.drop(key)
    server.node.directory.look(key)
    assert key not in server.node.directory
    record = cluster.asked("a", key).record
    assert record is not None
    server.table.put(key, record)
    cluster.run(20)
    assert key in server.node.directory


def forget_tombstones(cluster: Cluster, *names: str) -> None:
    """Ends were made so long ago that these servers remember nothing else of them."""
    for name in names:
        table = cluster.servers[name].table
        for key in table.ended():
            table.drop(key)
            assert table.has_ended(key)


def test_no_kept_copy_outlives_the_end_of_its_session() -> None:
    """Whoever kept a copy to ask with learns of the end, and answers with it however long ago that was."""
    cluster, key, backup, proxy = with_session()
    cluster.asked(proxy, key)
    node = cluster.servers[proxy].node
    assert key in node._pulls._kept
    cluster.end("a", key)
    cluster.run(10)
    assert key not in node._pulls._kept and node._pulls._kept_bytes == 0
    forget_tombstones(cluster, "a", backup, proxy)
    for name in ("a", backup, proxy):
        record = cluster.asked(name, key).record
        assert record is not None and record.state == ENDED


def test_a_full_server_takes_an_end_and_lets_go_of_the_copy_that_it_asks_with() -> None:
    """It has no room for the session, which it should hold; for its end there always is."""
    cluster, key, backup, proxy = with_session()
    cluster.servers[proxy].table._sessions_max = 0
    cluster.asked(proxy, key)
    cluster.end("a", key)
    cluster.run(10)
    assert cluster.servers[proxy].table.has_ended(key)
    forget_tombstones(cluster, "a", backup, proxy)
    cluster.kill("a")
    cluster.kill(backup)
    cluster.run(1_500)
    record = cluster.asked(proxy, key).record
    assert record is not None and record.state == ENDED


def test_an_end_that_a_question_brings_voids_what_was_kept() -> None:
    """The engine remembers it; what was kept to ask with is not to come back when the tombstone has gone."""
    cluster, key, backup, proxy = with_session()
    cluster.asked(proxy, key)
    for name in ("a", backup):
        record = cluster.held(name, key)
        assert record is not None
        cluster.servers[name].table.put(key, record.end(ENDED, cluster.now_ms))
    record = cluster.asked(proxy, key).record
    assert record is not None and record.state == ENDED
    assert key not in cluster.servers[proxy].node._pulls._kept


def test_what_is_dropped_after_its_end_is_remembered_is_not_kept() -> None:
    """Nor is what others answer with who do not know of the end."""
    cluster, key, _backup, proxy = with_session()
    node = cluster.servers[proxy].node
    cluster.servers[proxy].table.note_ended(key, cluster.now_ms + 1_000_000)
    record = cluster.held("a", key)
    assert record is not None
    node._pulls._keep(key, record)
    assert key not in node._pulls._kept
    answer = cluster.asked(proxy, key).record
    assert answer is not None and answer.state == ENDED


def test_a_last_copy_whose_end_is_remembered_is_not_held_again() -> None:
    """It was on its way to be adopted when the end came."""
    cluster, key, backup, proxy = with_session()
    record = cluster.held("a", key)
    assert record is not None
    cluster.end("a", key)
    cluster.run(10)
    forget_tombstones(cluster, "a", backup, proxy)
    cluster.servers[proxy].node._adopt(key, record)
    assert cluster.servers[proxy].table.state(key) == ENDED
    cluster.run(500)
    assert {cluster.servers[name].table.state(key) for name in ("a", backup)} <= {ENDED, None}


def test_that_nobody_has_it_is_not_remembered_when_somebody_came() -> None:
    """A server that was not there when it was said has the session."""
    cluster, *_ = with_session()
    key = cluster.first_key("a", start=5_000)
    assert cluster.asked("b", key).status is PullStatus.NONE
    assert key in cluster.servers["b"].node._pulls._negatives
    cluster._addresses = ("a", "b", "c", "d")
    cluster.start("d")
    cluster.create("d", key, ack="none", x=1)
    cluster.run(5)
    assert "d" in cluster.servers["b"].node.peers
    cluster.servers["b"].table.drop(key)
    assert fields_of(cluster.asked("b", key).record) == {"x": 1}


def test_a_minority_does_not_say_that_nobody_has_it() -> None:
    """All but two have said that they have nothing, and then were heard no more: too few are left to be certain."""
    cluster = Cluster("abcde", pull_timeout_ms=900)
    key = key_number(4_711)
    cluster.mangle = lambda source, target, message: source == "e" and isinstance(message, Answered)
    ticket = cluster.pull("a", key)
    cluster.run(100)
    cluster.cut("a", "bcd")
    cluster.run(700)
    membership = cluster.servers["a"].node.membership
    assert membership.is_complete() and not membership.has_quorum()
    (number,) = cluster.servers["a"].node._pulls._questions
    link = cluster.servers["a"].node.peers["e"].link
    frame = encode(Answered(number, 2, cluster.now_ms, b""))[LENGTH_BYTES:]
    cluster.handle("a", FramesReceived(link, (frame,)))
    answer = cluster.answer("a", ticket)
    assert isinstance(answer, Pulled) and answer.status is PullStatus.UNREACHABLE


def test_who_remembers_an_end_tells_a_newcomer_that_asks() -> None:
    """Nobody has a tombstone any more; a copy that somebody keeps against the rules does not win over the memory."""
    cluster, key, backup, proxy = with_session()
    record = cluster.held("a", key)
    assert record is not None
    cluster.end("a", key)
    cluster.run(10)
    forget_tombstones(cluster, "a", backup, proxy)
    for name in ("a", backup, proxy):
        cluster.servers[name].node._pulls._kept[key] = record.pack()
    cluster.start("d")
    cluster.run(100)
    answer = cluster.asked("d", key).record
    assert answer is not None and answer.state == ENDED


def test_a_link_that_was_not_asked_over_makes_no_difference() -> None:
    """The question goes on to wait for whom it asked."""
    cluster, key, backup, proxy = with_session(hedge_ms=200)
    cluster.cut(proxy, "a")
    ticket = cluster.pull(proxy, key)
    (question,) = cluster.servers[proxy].node._pulls._questions.values()
    asked = list(question.asked)
    cluster.close(proxy, backup)
    assert question.asked[: len(asked)] == asked
    cluster.heal()
    cluster.run(50)
    answer = cluster.answer(proxy, ticket)
    assert isinstance(answer, Pulled) and fields_of(answer.record) == {"x": 1}


def test_a_node_that_begins_anew_has_kept_nothing() -> None:
    """No state, no memory of what nobody has; and whoever waits is told that nobody answered."""
    cluster, key, _, proxy = with_session()
    cluster.asked(proxy, key)
    cluster.asked(proxy, key_number(99))
    pulls = cluster.servers[proxy].node._pulls
    waiting = cluster.pull(proxy, key, (Stamp(9, 9),))
    pulls.clear()
    for effect in cluster.servers[proxy].node._context.take_effects():
        cluster._perform(cluster.servers[proxy], effect)
    answer = cluster.answer(proxy, waiting)
    assert isinstance(answer, Pulled) and answer.status is PullStatus.UNREACHABLE and len(pulls) == 0
    cluster.run(10)
    cluster.seen.clear()
    for asked in (key, key_number(99)):
        cluster.asked(proxy, asked)
    assert [pull.have for pull in cluster.messages(Pull)] == [None] * len(list(cluster.messages(Pull)))
    assert {pull.key for pull in cluster.messages(Pull)} == {key, key_number(99)}
    assert pulls._kept_bytes == sum(map(len, pulls._kept.values()))


def test_who_wrote_what_the_browser_saw_is_asked_before_others_that_hold_nothing() -> None:
    """It is the likeliest to have it."""
    cluster = Cluster("abcdef", copies=2, pull_timeout_ms=250)
    key = cluster.first_key("a")
    holders = cluster.servers["a"].node.placement.holders(key)
    others = [name for name in cluster.servers if name not in holders]
    for number, name in enumerate(cluster.servers):
        cluster.create(name, key_number(number), x=1)
        cluster.write(name, key_number(number), y=1)  # its first change under its tag
    cluster.run(50)
    for asker, writer in ((others[0], others[-1]), (others[-1], others[0]), (others[1], others[2])):
        cluster.seen.clear()
        cluster.asked(asker, key, (Stamp(9, cluster.servers[writer].writer),))
        asked = [target for source, target, message in cluster.seen if source == asker and isinstance(message, Pull)]
        assert set(asked[:2]) == set(holders) and asked[2] == writer
        assert set(asked[2:]) == set(others) - {asker}


def test_what_answers_are_called_on_the_wire() -> None:
    """Nodes of different releases must agree."""
    assert (CURRENT, RECORD, NONE, NOT_SURE) == (0, 1, 2, 3)


def test_what_came_of_questions_is_counted() -> None:
    """Each once, by what was said: the record, that nobody has one, or that nobody could be asked."""
    cluster, key, backup, proxy = with_session()
    for _ in range(2):
        cluster.asked(proxy, key)
    cluster.asked(proxy, key_number(99))
    cluster.cut(proxy, "a" + backup)
    cluster.asked(proxy, key_number(98))
    counts = cluster.servers[proxy].node.counts
    assert {name: count for name, count in counts.items() if name.startswith("pulled_")} == {
        "pulled_record": 2,
        "pulled_none": 1,
        "pulled_unreachable": 1,
    }


def test_of_what_is_kept_the_oldest_makes_room() -> None:
    """What fits exactly is kept."""
    cluster, key, _, proxy = with_session()
    record = cluster.held("a", key)
    assert record is not None
    cluster, key, _, proxy = with_session(kept_bytes_max=len(record.pack()))
    other = next(
        each
        for each in map(key_number, range(1_000))
        if each != key and not cluster.servers[proxy].node.placement.is_holder(each)
    )
    cluster.create("a", other, x=1)
    cluster.run(3_000)
    pulls = cluster.servers[proxy].node._pulls
    for each in (key, other):
        cluster.asked(proxy, each)
        assert set(pulls._kept) == {each}


def test_what_is_over_or_held_is_not_kept_to_ask_with() -> None:
    """The one would come back after its end was forgotten; of the other there is a newer state here."""
    cluster, key, _, proxy = with_session()
    record = cluster.held("a", key)
    assert record is not None
    pulls = cluster.servers[proxy].node._pulls
    pulls._keep(key, record.end(ENDED, cluster.now_ms))
    assert not pulls._kept
    cluster.servers[proxy].table.put(key, record)
    pulls._keep(key, record)
    assert not pulls._kept
    cluster.servers[proxy].table.drop(key)
    pulls._keep(key, record)
    assert set(pulls._kept) == {key}


def test_only_the_first_answer_of_who_was_asked_counts() -> None:
    """Whoever was not asked says nothing, and nobody says two things."""
    cluster, key, backup, proxy = with_session()
    cluster.cut(proxy, "a" + backup)
    cluster.pull(proxy, key, (Stamp(9, 9),))
    node = cluster.servers[proxy].node
    ((number, question),) = node._pulls._questions.items()
    (asked,) = question.asked
    (other,) = {"a", backup} - {asked}
    node._pulls.take_answered(node.peers[other], Answered(number, NONE, 0, b""))
    assert not question.answered
    for status in (NOT_SURE, NONE):
        node._pulls.take_answered(node.peers[asked], Answered(number, status, 0, b""))
    assert question.answered == {asked: NOT_SURE}


def test_who_lost_its_link_is_not_waited_for() -> None:
    """The next holder is asked at once, however long an answer may take otherwise."""
    cluster, key, backup, proxy = with_session(hedge_ms=5_000, pull_timeout_ms=5_000)
    cluster.pull(proxy, key)
    (question,) = cluster.servers[proxy].node._pulls._questions.values()
    (asked,) = question.asked
    (other,) = {"a", backup} - {asked}
    cluster.close(proxy, asked)
    assert question.asked == [other]


def test_a_newcomer_asks_everybody_until_it_was_told_what_ended() -> None:
    """The first holder has missed the end behind a partition: what it answers may be over, and others know it."""
    cluster = Cluster("abc", copies=4)
    key = cluster.first_key("a", start=1_000)
    cluster.create("a", key, x=1)
    cluster.run(10)
    cluster.cut("a", "bc")
    cluster.end("b", key)
    cluster.run(10)

    def is_lost(source: str, target: str, message: Message) -> bool:
        del source
        return target == "d" and isinstance(message, TombstonesTold | Whole)

    cluster.mangle = is_lost
    cluster.start("d")
    cluster.run(5)
    ticket = cluster.pull("d", key)
    cluster.run(100)
    answer = cluster.answer("d", ticket)
    assert isinstance(answer, Pulled) and answer.record is not None
    assert answer.record.state == ENDED
