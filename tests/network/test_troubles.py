"""What of a cluster is told, and when: one line for each state."""

from __future__ import annotations

from sessile.network import troubles
from sessile.network.troubles import ALONE_MS, REMIND_MS, STRANGERS_MAX, UNMET_MS, Failure, Troubles
from sessile.replication.membership import Standing, Unlinked

SECRET = Failure("secret", "it has another secret", "give every server the same secret")
SILENT = Failure("silent", "no answer", "see its firewall")


def never(address: str, *, is_named: bool = True) -> Unlinked:
    return Unlinked(address, None, is_named)


def looks(what: Troubles, unlinked: list[Unlinked], linked: set[str], times_ms: range, named: int = 2) -> list[str]:
    """All that is told over this time."""
    return [line for now_ms in times_ms for line in what.look(unlinked, linked, named, now_ms)]


def test_what_waiting_does_not_mend_is_told_at_once_and_once() -> None:
    """With its remedy; again after a long time; and when it is over."""
    what = Troubles()
    what.failed("c:1", SECRET)
    first = looks(what, [never("c:1")], {"b:1"}, range(0, 60_000, 1_000))
    assert first == ["no link to c:1: it has another secret; give every server the same secret"]
    (later,) = looks(what, [never("c:1")], {"b:1"}, range(60_000, REMIND_MS + 60_000, 60_000))
    assert later == f"since {REMIND_MS // 60_000} minutes: {first[0]}"
    assert looks(what, [], {"b:1", "c:1"}, range(REMIND_MS + 60_000, REMIND_MS + 90_000, 1_000)) == [
        "linked to c:1: all is well there"
    ]


def test_a_member_that_was_never_met_is_told_after_a_while() -> None:
    """Servers are started one after the other; the newest reason counts."""
    what = Troubles()
    what.failed("c:1", Failure("refused", "nobody listens there", "start it"))
    assert looks(what, [never("c:1")], {"b:1"}, range(0, UNMET_MS, 1_000)) == []
    what.failed("c:1", SILENT)
    unknown = Unlinked("c:1", Standing.UNKNOWN, is_named=False)  # others know of it
    assert looks(what, [unknown], {"b:1"}, range(UNMET_MS, 2 * UNMET_MS, 1_000)) == [
        "did not meet c:1 in 10 s: no answer; see its firewall"
    ]


def test_one_that_is_met_in_time_is_not_told() -> None:
    """Neither that it was missed nor that all is well."""
    what = Troubles()
    what.failed("c:1", SILENT)
    assert looks(what, [never("c:1")], {"b:1"}, range(0, UNMET_MS, 1_000)) == []
    assert looks(what, [], {"b:1", "c:1"}, range(UNMET_MS, 2 * UNMET_MS, 1_000)) == []


def test_a_death_is_told_at_once() -> None:
    """A link that was lost a moment ago is none yet; one that is named no more is told once, and no reminder follows."""
    what = Troubles()
    assert looks(what, [Unlinked("c:1", Standing.ALIVE, is_named=True)], {"b:1"}, range(0, 500, 100)) == []
    (line,) = looks(what, [Unlinked("c:1", Standing.DEAD, is_named=True)], {"b:1"}, range(500, 9_000, 500))
    assert line.startswith("c:1 is dead, and others go on with its sessions: it gives no sign of life; see whether")
    gone = Unlinked("c:1", Standing.DEAD, is_named=False)
    assert looks(what, [gone], {"b:1"}, range(REMIND_MS, 3 * REMIND_MS, 60_000)) == []
    assert (
        looks(what, [], {"b:1"}, range(3 * REMIND_MS, 3 * REMIND_MS + 5_000, 1_000)) == []
    )  # it left, or is forgotten


def test_another_state_of_the_same_member_is_told_too() -> None:
    """It died, and came back with another secret."""
    what = Troubles()
    dead = Unlinked("c:1", Standing.DEAD, is_named=True)
    assert len(looks(what, [dead], {"b:1"}, range(0, 5_000, 1_000))) == 1
    for now_ms in range(5_000, 60_000, 1_000):  # back and forth
        what.failed("c:1", SECRET if now_ms % 2_000 else SILENT)
        told = what.look([dead], {"b:1"}, 2, now_ms)
        assert bool(told) == (now_ms == 5_000)


def test_what_many_have_in_common_is_one_line() -> None:
    """With a few of them named."""
    what = Troubles()
    many = [never(f"c{number}:1") for number in range(30)]
    for one in many:
        what.failed(one.address, SECRET)
    (line,) = what.look(many, {"b:1"}, 31, 0)
    assert line.startswith("no link to c0:1, c1:1, ") and "c7:1 and 22 more: it has another" in line


def test_a_server_alone_among_several_is_told_so() -> None:
    """After a while, with what it found at the others; once; and when it is alone no more."""
    what = Troubles()
    what.failed("b:1", SILENT)
    both = [never("b:1"), never("c:1")]
    lines = looks(what, both, set(), range(0, ALONE_MS + 20_000, 1_000))
    assert [line.partition(":")[0] for line in lines if "alone" in line] == ["alone among 3 named members for 10 s"]
    (alone,) = (line for line in lines if "alone" in line)
    assert all(word in alone for word in ("no answer", "secret=", "members=", "me="))
    (again,) = (
        line for line in looks(what, both, set(), range(REMIND_MS, REMIND_MS + 15_000, 1_000)) if "alone" in line
    )
    assert "for 3610 s" in again
    assert "alone no more: linked to b:1" in looks(what, [never("c:1")], {"b:1"}, range(4_000_000, 4_003_000, 1_000))
    (left,) = looks(Troubles(), [], set(), range(0, 15_000, 1_000))
    assert "(the others have left)" in left
    assert "alone" not in " ".join(looks(what, [], set(), range(5_000_000, 5_060_000, 1_000), named=0))


def test_who_greets_and_is_none_of_ours_is_told_and_forgotten() -> None:
    """It is neither named nor known; while it goes on, nothing more is told."""
    what = Troubles()
    lines = []
    for now_ms in range(0, 20_000, 500):
        what.refused("d:1", "its strategy is 'all-to-all'", "give every server the same url=", now_ms)
        lines += what.look([], {"b:1"}, 1, now_ms)
    assert lines == ["d:1 is refused: its strategy is 'all-to-all'; give every server the same url="]
    assert what.look([], {"b:1"}, 1, 99_000) == []
    assert not what._troubles and not what._failures and not what._unwelcome


def test_strangers_cause_few_lines_and_fill_nothing() -> None:
    """Whatever they call themselves."""
    what = Troubles()
    lines = []
    for number in range(3 * troubles.SUBJECTS_MAX):
        what.refused(f"x{number}", "odd", "none", 0)
        what.failed(f"y{number}", SILENT)
    lines += what.look([], {"b:1"}, 1, 1)
    assert sum(line.count("x") for line in lines) <= 1 + STRANGERS_MAX  # one line, which names a few
    assert len(what._failures) <= troubles.SUBJECTS_MAX and len(what._unwelcome) <= troubles.SUBJECTS_MAX
    assert [what.is_news(f"z{number}", 2) for number in range(9)].count(True) == 0
    assert what.is_news("z", REMIND_MS + 5) and not what.is_news("z", REMIND_MS + 6)


def test_why_there_is_no_link_can_be_asked() -> None:
    """For the status."""
    what = Troubles()
    assert what.problem_of("c:1") == "there was no answer yet"
    what.failed("c:1", SECRET)
    assert what.problem_of("c:1") == "it has another secret; give every server the same secret"
