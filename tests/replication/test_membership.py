"""One node's judgement: silence, greetings, whom to dial. How nodes get on together is in `test_membership_mesh.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessile.replication.member import INCARNATION_MAX, NAME_CHARS_MAX, Standing, Timings
from sessile.replication.membership import Greeting, Steps, Unlinked
from tests.replication.watch import Watch, info

if TYPE_CHECKING:
    from sessile.replication.messages import MemberInfo

ALIVE, SUSPECT, DEAD = Standing.ALIVE, Standing.SUSPECT, Standing.DEAD
LEAVING, LEFT, UNKNOWN = Standing.LEAVING, Standing.LEFT, Standing.UNKNOWN
KEEP_MS = Timings().tombstone_keep_ms


# -- silence -----------------------------------------------------------------------------------------------------------


def test_silence_on_a_link() -> None:
    """Suspect after 500 ms, dead and hung up after 1 000, for certain after as long as ends are remembered."""
    watch = Watch()
    watch.met("b", 7)
    assert watch.it.next_wakeup(watch.now_ms) == watch.now_ms
    assert watch.wait(499) == Steps() and watch.it.standing("b") is ALIVE
    assert watch.wait(1) == Steps() and watch.it.standing("b") is SUSPECT
    assert watch.it.link_of("b") == 7
    assert watch.wait(500) == Steps(dial=("b",), hang_up=(7,)) and watch.it.standing("b") is DEAD
    assert watch.it.link_of("b") is None and watch.it.name_of(7) is None
    watch.wait(KEEP_MS - 1)
    assert not watch.it.is_confirmed_dead("b")
    watch.wait(1)
    assert watch.it.is_confirmed_dead("b")
    assert watch.changes() == [(UNKNOWN, ALIVE), (ALIVE, SUSPECT), (SUSPECT, DEAD)]
    assert watch.changes() == []


def test_what_is_heard_ends_suspicion() -> None:
    """Any frame will do; on a link that is not a member's it says nothing."""
    watch = Watch()
    watch.met("b", 7)
    watch.wait(700)
    watch.hear(8)
    assert watch.it.standing("b") is SUSPECT
    watch.hear(7)
    assert watch.it.standing("b") is ALIVE
    watch.wait(499)
    assert watch.it.standing("b") is ALIVE


@pytest.mark.parametrize(("name", "wait_ms"), [("z", 0), ("b", 62)])
def test_a_closed_link(name: str, wait_ms: int) -> None:
    """The smaller name dials at once, the other a little later; the member is missed for 250 ms, and alive for 500."""
    watch = Watch()
    watch.met(name, 7)
    for _ in range(5):
        watch.wait(400)
        watch.hear(7)
    watch.down(7)
    assert watch.it.standing(name) is ALIVE and watch.it.has_missing(watch.now_ms)
    assert watch.it.linked() == () and watch.it.known() == (name,)
    if wait_ms:
        assert watch.wait(wait_ms - 1) == Steps()
        watch.wait(1)
    else:
        assert watch.it.tick(watch.now_ms) == Steps(dial=(name,))
    watch.wait(249 - wait_ms)
    assert watch.it.standing(name) is ALIVE and watch.it.has_missing(watch.now_ms)
    watch.wait(250)
    assert watch.it.standing(name) is ALIVE and not watch.it.has_missing(watch.now_ms)
    watch.wait(1)
    assert watch.it.standing(name) is DEAD and not watch.it.has_missing(watch.now_ms)
    assert not watch.it.is_confirmed_dead(name) and watch.it.known() == ()


def test_a_link_that_comes_back() -> None:
    """Within the grace nothing happened."""
    watch = Watch()
    watch.met("b", 7)
    watch.down(7)
    watch.wait(200)
    assert watch.met("b", 8) == Greeting(silent_ms=200, is_met=True)
    watch.wait(100)
    assert watch.it.standing("b") is ALIVE and watch.it.link_of("b") == 8 and watch.it.name_of(8) == "b"
    assert watch.changes() == [(UNKNOWN, ALIVE)]


def test_a_link_that_breaks_again_and_again_is_dialled_ever_later() -> None:
    """A member that greets and closes is no reason to dial without end."""
    watch = Watch()
    dials = 0
    for link in range(100):
        watch.greet(link, info("z"), address="z")
        watch.down(link)
        dials += len(watch.wait(100).dial)
        watch.failed("z")
    assert dials < 20


def test_a_refused_dial_is_certain() -> None:
    """Nobody listens there: dead at once; while another link is up, it means nothing."""
    watch = Watch()
    watch.met("z", 7)
    watch.failed("z", is_refused=True)
    assert watch.it.standing("z") is ALIVE and not watch.it.is_confirmed_dead("z")
    watch.down(7)
    watch.failed("z")
    assert watch.it.standing("z") is ALIVE
    watch.failed("z", is_refused=True)
    assert watch.it.standing("z") is DEAD and watch.it.is_confirmed_dead("z")
    watch.met("z", 8)
    assert watch.it.standing("z") is ALIVE and not watch.it.is_confirmed_dead("z")


def test_a_member_nobody_reached_is_unknown_and_not_dead() -> None:
    """Refused, it is known not to be there; it makes no difference to anybody's standing."""
    watch = Watch()
    watch.told(info("z"))
    watch.failed("z", is_refused=True)
    assert watch.it.standing("z") is UNKNOWN and watch.it.is_confirmed_dead("z")
    assert watch.changes() == [] and [place.name for place in watch.it.placeable()] == ["m"]


def test_who_was_away_blames_nobody() -> None:
    """After a pause of its own this node gives every link, and every link that just closed, a beat."""
    watch = Watch()
    watch.met("b", 7)
    watch.met("c", 8)
    watch.down(8)
    watch.now_ms += 60_000
    watch.it.was_away(watch.now_ms)
    assert watch.it.tick(watch.now_ms).hang_up == ()
    assert watch.it.standing("b") is watch.it.standing("c") is ALIVE
    watch.wait(249)
    assert watch.it.standing("b") is watch.it.standing("c") is ALIVE
    watch.wait(1)
    assert watch.it.standing("b") is SUSPECT and watch.it.standing("c") is ALIVE
    watch.wait(250)
    assert watch.it.standing("c") is DEAD
    assert watch.wait(250).hang_up == (7,)


def test_a_node_with_nobody_to_judge_is_never_late() -> None:
    """A long time between two calls is no pause where there was nothing to be woken for."""
    watch = Watch()
    assert watch.it.next_wakeup(watch.now_ms) == watch.now_ms
    watch.wait(0)
    assert watch.it.next_wakeup(watch.now_ms) is None
    watch.now_ms += 60_000
    watch.met("b", 7)


# -- greetings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first", "second", "hung_up"),
    [
        ("z", "z", "", 2),  # this node has the smaller name: its own dial stays
        ("z", "", "z", 1),
        ("b", "b", "", 1),  # the other one has: theirs stays
        ("b", "", "b", 2),
        ("b", "b", "b", 1),  # dialled by the same side: it has given up the first
        ("b", "", "", 1),
    ],
)
def test_of_two_links_one_is_kept(name: str, first: str, second: str, hung_up: int) -> None:
    """The one that the smaller name dialled, or the newer one."""
    watch = Watch()
    assert watch.greet(1, info(name), first) == Greeting(is_new=True)
    greeting = watch.greet(2, info(name), second)
    assert (greeting.replaced, bool(greeting.refusal)) == ((1, False) if hung_up == 1 else (None, True))
    assert watch.it.link_of(name) == 3 - hung_up
    watch.down(hung_up)
    assert watch.it.linked() == (name,) and watch.wait(0) == Steps()


def test_a_silent_link_is_replaced_whoever_dialled_it() -> None:
    """The other side has lost it and this one has not noticed."""
    watch = Watch()
    watch.greet(1, info("z"), "z")
    watch.wait(500)
    assert watch.greet(2, info("z")).replaced == 1
    assert watch.it.standing("z") is ALIVE


def test_a_new_incarnation_replaces_any_link() -> None:
    """The old process is gone though its link is not; of its silence nothing is said."""
    watch = Watch()
    watch.greet(1, info("z"), "z")
    watch.hear(1)
    watch.wait(300)
    assert watch.met("z", 2, incarnation=2) == Greeting(replaced=1, is_restarted=True, is_new=True)


def test_how_long_a_member_was_silent() -> None:
    """Until something is heard on a link that was accepted, a greeting does not make up for it."""
    watch = Watch()
    watch.met("b", 1)
    watch.wait(KEEP_MS + 5)
    assert watch.greet(2, info("b")).silent_ms == KEEP_MS + 5
    watch.down(2)
    watch.wait(10)
    assert watch.met("b", 3).silent_ms == KEEP_MS + 15
    watch.down(3)
    watch.wait(10)
    assert watch.met("b", 4).silent_ms == 10


def test_a_member_heard_to_be_started_again_owes_nothing_for_its_silence() -> None:
    """Others met the new incarnation first and told of it."""
    watch = Watch()
    watch.met("b", 1)
    watch.wait(KEEP_MS)
    watch.told(info("b", 2))
    assert watch.it.standing("b") is UNKNOWN and watch.it.has_missing(watch.now_ms)
    assert watch.wait(0).dial == () and watch.it.link_of("b") is None  # the dial that is under way goes on
    assert watch.greet(2, info("b", 2)) == Greeting(is_restarted=True, is_new=True)


def test_a_node_that_starts_over_is_as_near_to_others_as_those_whose_copies_it_takes() -> None:
    """Near to that side, whom it may not have heard for ever, and apart from its mates of a moment ago."""
    watch = Watch()
    for name, link in (("b", 1), ("c", 2), ("d", 3)):
        watch.met(name, link)
    watch.wait(KEEP_MS)
    watch.hear(3)
    watch.it.renew(("b", "c"))
    assert watch.it.me == info("m", 2) and watch.it.take_news()
    watch.wait(5)
    assert [watch.greet(4 + at, info(name)).silent_ms > KEEP_MS for at, name in enumerate("bcd")] == [
        False,
        False,
        True,
    ]
    assert watch.greet(8, info("d", 2)).silent_ms == 0


def test_a_node_that_starts_over_dials_that_side_at_once() -> None:
    """However often nobody answered there before: it must be heard before it is apart again."""
    watch = Watch("b", "c")
    watch.told(info("b"), info("c"))
    for _ in range(8):
        watch.wait(2_000)
        watch.failed("b")
        watch.failed("c")
    assert watch.wait(0).dial == ()
    watch.it.renew(("b",))
    assert watch.wait(0).dial == ("b",)


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (info("m"), "this node itself"),
        (info("m", 9), "this node itself"),
        (info("m", host="elsewhere"), "two nodes are called 'm'"),
        (info("b", 9, host="elsewhere"), "two nodes are called 'b'"),
        (info(""), "no such name"),
        (info("n" * (NAME_CHARS_MAX + 1), host="h"), "no such name"),
        (info("n", host="h" * (NAME_CHARS_MAX + 1)), "no such name"),
        (info("n", -1), "no such name"),
        (info("n", INCARNATION_MAX), "no such name"),
        (info("n", 1, 3), "no such name"),
    ],
)
def test_who_is_refused(who: MemberInfo, reason: str) -> None:
    """One's own name, a name that is taken, a name that is none: nothing of them stays, and they are dialled later."""
    watch = Watch("x")
    watch.wait(0)
    watch.met("b", 1)
    before = watch.it.infos()
    refused = watch.greet(2, who, "x")
    assert reason in refused.refusal and bool(refused.remedy) == ("itself" not in reason)
    assert reason in watch.greet(3, who).refusal
    assert watch.it.infos() == before and watch.it.linked() == ("b",) and watch.it.tick(watch.now_ms) == Steps()
    assert watch.it.counts["refused_members"] == (2 if reason == "no such name" else 0)
    assert watch.it.counts["name_clashes"] == (2 if reason.startswith("two nodes") else 0)


def test_a_silent_member_may_have_moved() -> None:
    """The same name from another host is welcome once nothing is heard of the first."""
    watch = Watch()
    watch.met("b", 1)
    watch.wait(600)
    assert watch.greet(2, info("b", 2, host="elsewhere")).replaced == 1
    assert [place.host for place in watch.it.placeable()] == ["elsewhere", "host-m"]


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_an_address_is_dialled_until_somebody_greets_there() -> None:
    """Then it is that member's, and leads to it when its link is lost."""
    watch = Watch("m", "ip-1", "ip-2", "n" * (NAME_CHARS_MAX + 1))
    assert watch.wait(0).dial == ("ip-1", "ip-2")
    assert watch.it.has_missing(watch.now_ms)
    watch.greet(1, info("z"), "ip-1")
    watch.failed("ip-2", is_refused=True)
    assert not watch.it.has_missing(watch.now_ms)
    assert watch.wait(100).dial == ("ip-2",)
    watch.down(1)
    watch.failed("ip-2")
    assert set(watch.wait(220).dial) == {"ip-1", "ip-2"}
    watch.failed("ip-1", is_refused=True)
    assert watch.it.standing("z") is DEAD


def test_an_address_that_leads_to_somebody_else_now() -> None:
    """Who greeted there before is dialled by its name again."""
    watch = Watch("ip-1", "y")
    watch.wait(0)
    watch.failed("y")
    watch.greet(1, info("y"), "ip-1")
    watch.wait(1_000)
    assert watch.it.standing("y") is DEAD
    watch.greet(2, info("z"), "ip-1")
    assert watch.wait(0).dial == ("y",)


def test_to_whom_there_is_no_link_can_be_asked() -> None:
    """Named addresses where nobody greeted, and members, met or not; a member under two names is one."""
    watch = Watch("m", "ip-1", "ip-2")
    assert watch.it.unlinked() == (Unlinked("ip-1", None, is_named=True), Unlinked("ip-2", None, is_named=True))
    assert (watch.it.named, watch.it.linked_at()) == (2, frozenset())
    watch.wait(0)
    watch.greet(1, info("z"), "ip-1")
    watch.hear(1)
    watch.told(info("y"))
    assert watch.it.unlinked() == (Unlinked("y", UNKNOWN, is_named=False), Unlinked("ip-2", None, is_named=True))
    assert watch.it.named == 2 and watch.it.linked_at() == {"z", "ip-1"}
    watch.down(1)
    watch.wait(5_000)
    (lost, *_) = watch.it.unlinked()
    assert (lost, lost.is_met) == (Unlinked("ip-1", DEAD, is_named=True), True)
    assert [one.is_met for one in watch.it.unlinked()] == [True, False, False]
    watch.it.said_goodbye("z", watch.now_ms)
    assert [one.address for one in watch.it.unlinked()] == ["y", "ip-2"]


def test_ones_own_address_is_dialled_once() -> None:
    """Whoever greets there is this node."""
    watch = Watch("ip-1")
    assert watch.wait(0).dial == ("ip-1",) and watch.it.has_missing(watch.now_ms)
    watch.greet(1, info("m"), "ip-1")
    assert watch.wait(9_000) == Steps() and not watch.it.has_missing(watch.now_ms) and watch.it.has_quorum()


def test_who_discovery_drops_is_dialled_no_more() -> None:
    """Unless there is a link; and who was never named is dialled for ever."""
    watch = Watch("y", "z")
    watch.wait(0)
    watch.told(info("w"), info("y"), info("z"))
    for name in "yz":
        watch.failed(name)
    watch.met("z", 1)
    watch.it.find((), watch.now_ms)
    for _ in range(3):
        watch.hear(1)
        assert watch.wait(400).dial == ("w",)
        watch.failed("w")
    assert not watch.it.has_missing(watch.now_ms)
    watch.down(1)
    assert watch.wait(0).dial == ("z",)
    watch.failed("z")
    watch.wait(500)
    assert watch.it.standing("z") is DEAD
    watch.failed("z")
    assert "z" not in watch.wait(9_000).dial
    watch.it.find(["z"], watch.now_ms)
    assert watch.wait(0).dial == ("z",)


def test_a_second_name_that_discovery_drops_leads_nowhere() -> None:
    """The member is dialled by its own."""
    watch = Watch("ip-1")
    watch.wait(0)
    watch.greet(1, info("z"), "ip-1")
    watch.it.find(["z"], watch.now_ms)
    watch.wait(1_000)
    assert watch.it.standing("z") is DEAD
    watch.failed("z")
    assert watch.wait(2_000).dial[:1] == ("z",)


def test_who_greets_in_a_lower_incarnation_was_started_again() -> None:
    """It has nothing of what it had, whatever its clock says; a greeting of its last process does not count any more."""
    watch = Watch()
    watch.met("b", 1, incarnation=1_000)
    watch.down(1)
    greeting = watch.met("b", 2, incarnation=7)
    assert greeting.is_restarted and greeting.is_new
    watch.down(2)
    watch.met("b", 3, incarnation=1_001)
    assert not watch.met("b", 4, incarnation=7).is_restarted


def test_a_node_that_starts_over_twice_is_another_one_each_time() -> None:
    """Its peers would take it for the same, with all that it held, were the incarnation no higher."""
    watch = Watch()
    incarnations = [watch.it.me.incarnation]
    for _ in range(2):
        watch.it.renew(())
        incarnations.append(watch.it.me.incarnation)
    assert incarnations == [1, 2, 3]


def test_an_address_is_anybody_s_once_its_member_is_forgotten() -> None:
    """Another server may be started there; the addresses of members that are there stay theirs."""
    watch = Watch("ip-1", "ip-2")
    watch.wait(0)
    watch.greet(1, info("y"), "ip-1")
    watch.greet(2, info("z"), "ip-2")
    watch.it.said_goodbye("z", watch.now_ms)
    watch.down(2)
    dialled: list[str] = []
    for _ in range(0, KEEP_MS, 400):
        watch.hear(1)
        assert not dialled
        dialled += watch.wait(400).dial
    assert dialled == ["ip-2"] and watch.it.standing("z") is UNKNOWN


def test_nothing_is_left_of_a_member_that_is_forgotten() -> None:
    """Not even how it went to dial it: members come and go for years."""
    watch = Watch()
    watch.met("z", 2)
    watch.it.said_goodbye("z", watch.now_ms)
    watch.down(2)
    assert set(watch.it._dials._dials) == {"z"}
    watch.wait(KEEP_MS)
    assert not watch.it._dials._dials and len(watch.it.infos()) == 1


def test_who_was_known_before_discovery_named_and_dropped_it_is_dialled_no_more() -> None:
    """As one that discovery named first."""
    watch = Watch()
    watch.told(info("z"))
    assert watch.wait(0).dial == ("z",)
    watch.failed("z")
    for named in (["z"], []):
        watch.it.find(named, watch.now_ms)
    assert watch.wait(9_000).dial == ()
