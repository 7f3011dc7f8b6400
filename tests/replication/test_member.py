"""One member's outlook: each row of the table, and timings that are in order."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from sessile.errors import SettingsError
from sessile.replication.member import (
    INCARNATION_MAX,
    NAME_CHARS_MAX,
    NEVER_MS,
    Member,
    Stage,
    Standing,
    Timings,
    is_sane,
)
from sessile.replication.messages import MemberInfo

NOW_MS = 5_000


def member(standing: Standing, link: int | None = None) -> Member:
    """One of this standing, heard now."""
    one = Member(MemberInfo("b:7400", "host-b", 1), NOW_MS)
    one.standing, one.link = standing, link
    return one


@pytest.mark.parametrize(
    ("standing", "link", "after_ms", "then"),
    [
        (Standing.ALIVE, 7, 500, Standing.SUSPECT),
        (Standing.SUSPECT, 7, 1_000, Standing.DEAD),
        (Standing.LEAVING, 7, 1_000, Standing.DEAD),
        (Standing.LEFT, 7, 1_000, Standing.LEFT),
        (Standing.ALIVE, None, 500, Standing.DEAD),  # its lease may run that long
        (Standing.SUSPECT, None, 250, Standing.DEAD),
        (Standing.LEAVING, None, 250, Standing.DEAD),
        (Standing.DEAD, None, 600_000, Standing.DEAD),
        (Standing.LEFT, None, 600_000, Standing.UNKNOWN),
        (Standing.UNKNOWN, None, NEVER_MS - NOW_MS, Standing.UNKNOWN),
    ],
)
def test_what_silence_makes_of_a_member(standing: Standing, link: int | None, after_ms: int, then: Standing) -> None:
    """After how long, and what."""
    assert member(standing, link).outlook(Timings()) == (NOW_MS + after_ms, then)


def test_what_is_certain_needs_no_second_look() -> None:
    """A member that is dead for certain stays so."""
    dead = member(Standing.DEAD)
    dead.is_confirmed = True
    assert dead.outlook(Timings()) == (NEVER_MS, Standing.DEAD)


@pytest.mark.parametrize(
    ("standing", "link", "due_ms"),
    [(Standing.ALIVE, 7, 250), (Standing.SUSPECT, 7, 750), (Standing.ALIVE, None, 500), (Standing.LEAVING, 7, 750)],
)
def test_who_is_forgiven_has_a_beat_to_be_heard(standing: Standing, link: int | None, due_ms: int) -> None:
    """However long this node was away, nothing worse is thought of a member for the next 250 ms at the least."""
    one = member(standing, link)
    assert one.is_silent(NOW_MS + 90_000, Timings())
    one.forgive(NOW_MS + 90_000, Timings())
    assert not one.is_silent(NOW_MS + 90_000, Timings())
    assert one.outlook(Timings())[0] == NOW_MS + 90_000 + due_ms


def test_there_is_nothing_to_forgive() -> None:
    """Who was just heard loses no time; who is dead or unknown stays so."""
    heard = member(Standing.ALIVE, 7)
    for away_ms in (0, 250):  # after 250 it has exactly a beat left
        heard.forgive(NOW_MS + away_ms, Timings())
        assert heard.since_ms == NOW_MS
    heard.forgive(NOW_MS + 251, Timings())
    assert heard.since_ms == NOW_MS + 1
    for standing in (Standing.DEAD, Standing.LEFT, Standing.UNKNOWN):
        gone = member(standing)
        gone.forgive(NOW_MS + 90_000, Timings())
        assert gone.since_ms == NOW_MS


@pytest.mark.parametrize(
    "wrong",
    [
        {"beat_ms": 0},
        {"beat_ms": 500},
        {"suspect_after_ms": 1_000},
        {"dead_after_ms": 600_000},
        {"return_ms": 0},
        {"return_ms": 1_001},
        {"suspect_after_ms": 4, "beat_ms": 1},
    ],
)
def test_timings_are_in_order(wrong: dict[str, int]) -> None:
    """A beat comes before suspicion, suspicion before death, and death before forgetting: checked at construction."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Timings(**wrong)


@pytest.mark.parametrize(
    ("beat_ms", "suspect_after_ms", "lease_ms", "beat_every_ms"),
    [
        (250, 500, 450, 250),
        (400, 500, 450, 250),
        (10, 500, 450, 10),
        (10, 11, 9, 5),
        (1, 5, 3, 1),
        (490, 5_000, 4_500, 490),
    ],
)
def test_beats_leave_room_in_the_lease(beat_ms: int, suspect_after_ms: int, lease_ms: int, beat_every_ms: int) -> None:
    """A lease is shorter than others wait, and a beat comes early enough in it that a loop may be late."""
    timings = Timings(beat_ms=beat_ms, suspect_after_ms=suspect_after_ms, dead_after_ms=10_000)
    assert (timings.lease_ms, timings.beat_every_ms) == (lease_ms, beat_every_ms)


def test_a_member_shows_itself() -> None:
    """Name, standing, link."""
    assert repr(member(Standing.ALIVE, 7)) == "<Member b:7400, alive, link 7>"


@pytest.mark.parametrize(
    ("changes", "sane"),
    [
        ({"name": "n" * NAME_CHARS_MAX, "host": "h" * NAME_CHARS_MAX, "serves": "s" * NAME_CHARS_MAX}, True),
        ({"incarnation": 0, "stage": Stage.GONE}, True),
        ({"incarnation": INCARNATION_MAX - 1, "host": ""}, True),
        ({"name": "n"}, True),
        ({"name": ""}, False),
        ({"name": "n" * (NAME_CHARS_MAX + 1)}, False),
        ({"host": "h" * (NAME_CHARS_MAX + 1)}, False),
        ({"serves": "s" * (NAME_CHARS_MAX + 1)}, False),
        ({"incarnation": -1}, False),
        ({"incarnation": INCARNATION_MAX}, False),
        ({"stage": len(Stage)}, False),
        ({"stage": -1}, False),
    ],
)
def test_what_a_member_may_be_called_is_bounded(changes: dict[str, Any], *, sane: bool) -> None:
    """To the last character, incarnation and stage."""
    assert is_sane(replace(MemberInfo("b:7400", "host-b", 1), **changes)) is sane


def test_what_stages_are_on_the_wire() -> None:
    """Nodes of different releases must agree."""
    assert [(stage.name, int(stage)) for stage in Stage] == [("PRESENT", 0), ("LEAVING", 1), ("GONE", 2)]


def test_timings_at_their_limits() -> None:
    """The least that is in order is taken, and each is named."""
    least = Timings(beat_ms=1, return_ms=1, suspect_after_ms=5, dead_after_ms=6, tombstone_keep_ms=7)
    assert least.lease_ms == 3
    assert Timings(dead_after_ms=1_000, return_ms=1_000).return_ms == 1_000
    with pytest.raises(TypeError):
        Timings(250)  # type: ignore[call-arg]  # that is what is tested
