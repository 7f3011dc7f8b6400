"""What the simulation once found, message by message.

A seed finds its bug only as long as every draw before it stays what it was; each change of the world, and each new kind of
message, makes it another run. So what a recorded seed found is kept here as well: the bug, as an edit that plants it again,
and a scenario in which it shows, whatever seeds draw. Scenarios that belong to one part of a node stand with the tests of
that part; those that need several stand here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sessile.engine import Engine
from sessile.replication.events import DialFailed
from sessile.replication.links import Links
from sessile.replication.membership import Membership
from sessile.replication.messages import Acked, Offered, Whole
from sessile.replication.node import Node
from sessile.replication.pulls import Pulls
from sessile.replication.pushes import Pushes
from sessile.replication.repair import Repair
from sessile.simulation.network import Network
from tests import test_engine_proxy
from tests.replication import test_links, test_node, test_pulls, test_pushes, test_repair
from tests.replication.cluster import Cluster
from tests.replication.watch import Watch, info
from tests.simulation import test_network
from tests.simulation.planted import planted
from tests.simulation.planting import edited
from tests.simulation.scenes import calm_world

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

__all__ = ["FROZEN", "Frozen"]


class Frozen(NamedTuple):
    """A finding: the seed that made it, what was wrong, how that is planted again, and where it shows."""

    seed: int
    found: str
    plant: Callable[[], AbstractContextManager[Any]]
    scenario: Callable[[], object]
    """Passes, and raises AssertionError while the bug is planted."""


# -- scenarios -------------------------------------------------------------------------------------------------------------


def a_leaver_s_last_holders_die() -> None:
    """Those that have just taken over a leaver's copy die before it has gone: another one gets it."""
    cluster = Cluster("abcd")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(50)
    holders = cluster.servers["b"].node.placement.order(key)[1:3]
    cluster.stop("a")
    for _ in range(100):
        cluster.run(1)
        if all(cluster.held(name, key) is not None for name in holders):
            break
    cluster.run(3)  # it has heard that they have it
    for name in holders:
        cluster.kill(name)
    (last,) = set("bcd") - set(holders)
    cluster.run(1_000)
    assert cluster.values(key).get(last) == {"x": 1}


def a_leaver_looks_again_when_a_link_is_lost() -> None:
    """One that it handed its copy to is gone when it is about to go: what was handed over is to be handed over again."""
    cluster = Cluster("abc")
    key = cluster.first_key("a")
    cluster.create("a", key, x=1)
    cluster.run(50)
    cluster.stop("a")
    for _ in range(100):
        cluster.run(1)
        if all(cluster.held(name, key) is not None for name in "bc"):
            break
    cluster.run(3)  # it has heard that they have it
    cluster.kill("b")
    cluster.start("b", incarnation=2)
    cluster.mangle = lambda source, target, message: (
        target == "b" and source == "c" and isinstance(message, Offered | Whole)
    )
    cluster.run(1_000)
    assert cluster.values(key).get("b") == {"x": 1}


def what_the_dead_confirmed_is_kept() -> None:
    """A server that is no holder wrote; both holders have confirmed, and die: its copy is not let go of."""
    cluster = Cluster("abcdef", second_target_ms=5_000)
    key = cluster.first_key("a")
    one, other, _, _, writer, *_ = cluster.servers["a"].node.placement.order(key)
    cluster.create(writer, key, x=1)
    cluster.run(500)
    assert set(cluster.values(key)) == {one, other, writer}
    cluster.mangle = lambda source, _, message: source == writer and isinstance(message, Offered)
    cluster.kill(one)
    cluster.kill(other)
    cluster.run(2_500)
    assert cluster.values(key).get(writer) == {"x": 1}


def all_is_not_nobody() -> None:
    """ack=all, and the only other holder is just not heard of: the change is held by nobody else, and that is said."""
    cluster = Cluster("ab", ack_timeout_ms=400)
    key = cluster.first_key("a")
    cluster.run(500)
    cluster.cut("a", "b")
    cluster.run(700)
    ticket = cluster.create("a", key, ack="all", x=1)
    cluster.run(50)
    assert cluster.answer("a", ticket) is None


def a_change_whose_holder_is_gone_is_closed() -> None:
    """ack=none, and the only other holder goes before it has said that it has the change: nobody is waited for."""
    cluster = Cluster("ab")
    key = cluster.first_key("a")
    cluster.mangle = lambda source, target, message: isinstance(message, Acked)
    cluster.create("a", key, x=1)
    cluster.run(20)
    cluster.kill("b")
    cluster.run(2_000)
    assert cluster.servers["a"].node.waiting["pushes"] == 0


def a_connection_lost_before_its_dial_is_reported() -> None:
    """The dial has failed then: whoever made it hears of that, or it would be under way for ever."""
    world = calm_world(nodes=2)
    one, other = world.living()
    told: list[object] = []
    one.enqueue_input = told.append  # type: ignore[method-assign, assignment]
    world.network.extra_ms[one.place, other.place] = 300
    before = world.network.connections()
    world.network.dial(one, other.name)
    while world.network.connections() == before:
        world.schedule.run_until(world.now_ms + 1)
    world.network.break_connection(world.network.connections()[-1])
    world.schedule.run_until(world.now_ms + 1_000)
    assert told and isinstance(told[-1], DialFailed)


def who_starts_over_is_far_from_its_mates() -> None:
    """It heard them a moment ago, and takes over what the others hold, from whom these were apart."""
    watch = Watch()
    for name, link in (("b", 1), ("c", 2)):
        watch.met(name, link)
    watch.wait(10)
    watch.it.renew(("b",))
    watch.down(1)
    watch.down(2)
    silent_ms = {name: watch.greet(3 + place, info(name)).silent_ms for place, name in enumerate("bc")}
    assert silent_ms["b"] < 1_000
    assert silent_ms["c"] > 600_000


def holders_of(cluster: Cluster, key: bytes) -> tuple[str, ...]:
    """Who holds a session, as the first server sees it."""
    return next(iter(cluster.servers.values())).node.placement.holders(key)


# -- findings --------------------------------------------------------------------------------------------------------------

FROZEN: list[Frozen] = [
    Frozen(21, "a change whose holder was gone for good stayed open for ever",
        partial(edited, Pushes, "send_lacking", "self._close_if_held(push)", "pass"),
        a_change_whose_holder_is_gone_is_closed),
    Frozen(58, "a copy that a holder had more of was not offered again before the next pass",
        partial(edited, Repair, "_has", "self.start(announces=False)", "pass"),
        test_repair.test_a_copy_that_changes_while_it_is_offered_is_offered_again),
    Frozen(426, "a change to a session that ran out of time stayed open for ever",
        partial(edited, Pushes, "send_lacking", "self._forget(push)", "pass"),
        test_pushes.test_a_session_that_runs_out_of_time_while_it_waits_is_given_up),
    Frozen(20047, "a node that leaves dropped its copies on handing them over",
        partial(planted, "who leaves drops what it handed over"),
        test_repair.test_a_node_that_leaves_hands_over_first),
    Frozen(21007, "the last holder died just after a leaving node had dropped its copies",
        partial(planted, "who leaves drops what it handed over"),
        a_leaver_s_last_holders_die),
    Frozen(30072, "a node left trusting a holder that had just died",
        partial(edited, Node, "peer_went", "self._context.handed.clear()", "pass"),
        a_leaver_looks_again_when_a_link_is_lost),
    Frozen(31660, "a connection lost before the dial was reported left the dial under way for ever",
        partial(edited, Network, "_up", "side.process.enqueue_input(",
            "side.is_open and side.process.enqueue_input("),
        a_connection_lost_before_its_dial_is_reported),
    Frozen(50131, "a stamp was given twice after an unconfirmed write had run out of time",
        partial(edited, Engine, "_on_expired", "self._lost.add(key)", "pass"),
        partial(test_engine_proxy.test_a_write_that_may_be_lost_leaves_with_its_writer, is_confirmed=False)),
    Frozen(50954, "a server kept the last copy for its own questions and did not offer it",
        partial(edited, Node, "_adopt", "self._repair.start(announces=False)", "pass"),
        test_pulls.test_a_kept_copy_that_turns_out_to_be_the_last_is_held_again),
    Frozen(60823, "a second target dropped a copy that had changed since its own write was confirmed",
        partial(edited, Pushes, "_quiet", "context.replica.table.get(key) is packed", "True"),
        test_pushes.test_a_server_that_is_no_holder_keeps_a_copy_that_changed_again),
    Frozen(61208, "a server that is no holder let go of what holders that had died confirmed",
        partial(edited, Pushes, "_quiet", "and push.confirmed.issuperset(context.placement.others(key))", ""),
        what_the_dead_confirmed_is_kept),
    Frozen(71483, "a copy that an engine had pulled was listed by nobody",
        partial(edited, Pulls, "_finish", "self._context.alarm(ENTERED_MS, partial(self._look, question.key))", "pass"),
        test_pulls.test_a_session_that_came_by_a_question_is_in_the_directory),
    Frozen(72518, "stalled frames were overtaken by later ones",
        partial(edited, Network, "unblock", "self._hand_over(side, data)",
            "self._schedule.after(100, partial(self._hand_over, side, data))"),
        test_network.test_frames_of_one_direction_keep_their_order_through_a_partition),
    Frozen(211699, "a change that all were to hold was held by nobody else, since the only holder was just not heard of",
        partial(edited, Pushes, "_is_satisfied", "if not push.confirmed and", 'if push.ack == "one" and not push.confirmed and'),
        all_is_not_nobody),
    Frozen(216372, "a node left with the only tombstone of a session",
        partial(edited, Repair, "_visit", "self._hand_over(going, key, digest, context.peers)", "pass"),
        test_repair.test_a_leaver_hands_over_what_it_knows_of_ends),
    Frozen(5011474, "a change stayed open when the last answer to it was a denial",
        partial(edited, Pushes, "_denied", "self._close_if_held(push)", "pass"),
        test_pushes.test_a_denial_that_comes_last_leaves_nothing_open),
    Frozen(20009776, "a server that is no holder let go of a tombstone with what it had written before",
        partial(edited, Pushes, "_quiet", "and context.replica.table.state(key) == LIVE", ""),
        test_pushes.test_a_tombstone_is_not_let_go_of_with_what_was_written_before),
    Frozen(1024014, "the last copy of a session, kept of a question, was older than the use that was made of it",
        partial(edited, Node, "handle", "self._pulls.touch(event.key, event.touched_ms)", "pass"),
        test_pulls.test_a_kept_copy_is_as_old_as_its_session_was_last_used),
    Frozen(1067048, "a node left though who had just been answered went on to end a session",
        partial(edited, Node, "_go", "context.now_ms - self._pushes.answered_ms >= ANSWERED_MS", "True"),
        test_node.test_who_was_answered_just_now_may_tell_of_more_before_its_node_leaves),
    Frozen(1007900, "two that had both started over held what had ended, since neither knew how long they were apart",
        partial(edited, Membership, "renew", "member.heard_ms = -NEVER_MS", "pass"),
        who_starts_over_is_far_from_its_mates),
    Frozen(752879655291, "two that were apart had each told the other to start over, and neither ever did",
        partial(edited, Links, "_reunite", "incarnation == they.incarnation and context.now_ms < until_ms", "incarnation == they.incarnation"),
        partial(test_links.test_what_was_decided_once_is_decided_for_a_while, 2_100, True)),
    Frozen(455, "a question went with a link that another one replaced, and nobody was said to have the session",
        partial(planted, "a link is let go before another one has replaced it"),
        test_links.test_a_question_outlives_the_link_that_another_replaces),
    Frozen(400006347, "a newcomer that reached two sides which were apart carried over what had ended on one",
        partial(edited, Links, "_is_between", "return bool(theirs.apart & linked) or ", "return False and "),
        partial(test_links.test_a_newcomer_is_no_bridge_for_what_has_ended, "")),
]  # fmt: skip
