"""The show of mistakes: its judgement, its table, and two of its entries on real processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.mistakes import Mistake, Outcome, Seen, Wanted, cluster
from bench.mistakes.judge import faults_of
from bench.mistakes.table import MISTAKES
from bench.show import mistakes as show

if TYPE_CHECKING:
    from pathlib import Path

LINE = "url= is wrong: write %40"
WARNS = Wanted(Outcome.WARNS, ("url=",), ("%40",), lines_max=2, never=("w0rd",))
STOPS = Wanted(Outcome.STOPS, ("url=",), ("%40",))
REFUSES = Wanted(Outcome.REFUSES, ("url=",), ("%40",))
WORKS = Wanted(Outcome.WORKS, lines_max=0)


@pytest.mark.parametrize(
    ("seen", "wanted", "fault"),
    [
        (Seen("", [LINE], None, [200]), WARNS, ""),
        (Seen("", [LINE], 1), STOPS, ""),
        (Seen("", [LINE], None, [503, 503]), REFUSES, ""),
        (Seen("", [], None, [200]), WORKS, ""),
        (Seen("", [], None, [200]), WARNS, "no line names the setting and the remedy"),
        (Seen("", ["url= is wrong", "write %40"], None, [200]), WARNS, "no line names"),
        (Seen("", [LINE] * 3, None, [200]), WARNS, "3 lines, more than 2"),
        (Seen("", [LINE, "for w0rd"], None, [200]), WARNS, "a line holds what none may, number 1"),
        (Seen("", [LINE], None, [200, 500]), WARNS, "1 of 2 answers were [500]"),
        (Seen("", [LINE, "Traceback (most recent call last):"], None, [200]), WARNS, "a traceback"),
        (Seen("", [LINE], 1), WARNS, "it ended with status 1"),
        (Seen("", [LINE], None, [200], ["the play says so"]), WARNS, "the play says so"),
        (Seen("", [LINE], None, [200]), STOPS, "it did not stop"),
        (Seen("", [LINE], 0), STOPS, "it ended with status 0"),
        (Seen("", [LINE], None, [200]), REFUSES, "1 of 1 answers were [200]"),
        (Seen("", [LINE], None, [503]), WORKS, "1 of 1 answers were [503]"),
        (Seen("", [], None, []), WORKS, "no request was made"),
    ],
)
def test_what_was_seen_is_held_to_what_is_wanted(seen: Seen, wanted: Wanted, fault: str) -> None:
    """Setting and remedy in one line, no traceback, no secret, not one line for each request, and the right end."""
    faults = faults_of(seen, wanted)
    assert bool(faults) == bool(fault)
    assert fault in " / ".join(faults)


def test_every_mistake_has_an_entry_of_its_own() -> None:
    """All lines of the list are there, and each is told by a name."""
    assert {each.issue for each in MISTAKES} == {f"C{n}" for n in range(13, 17)} | {f"D{n}" for n in range(17, 25)}
    assert len({(each.issue, each.name) for each in MISTAKES}) == len(MISTAKES)
    for each in MISTAKES:
        assert each.wanted.setting or each.wanted.outcome is Outcome.WORKS or each.issue == "D22", each.name


@pytest.mark.parametrize("name", ["secret that is too short", "another secret"])
def test_a_mistake_is_made_on_real_processes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small form of the show: two servers instead of three."""
    monkeypatch.setattr(cluster, "SERVERS", 2)
    monkeypatch.setattr(cluster._play, "__kwdefaults__", {"running": 2})
    (mistake,) = (each for each in MISTAKES if each.name == name)
    seen = mistake.play(tmp_path)
    assert faults_of(seen, mistake.wanted) == [], seen.lines
    assert seen.lines


def test_the_table_tells_what_was_done_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong stands beside it; programs that are missing and names that are not asked for are left out."""
    made = [
        Mistake("C1", "one", lambda _: Seen("this", [LINE, "\x1b[2J"], 1), STOPS),
        Mistake("D2", "two", lambda _: Seen("that", [f"{LINE} {n}" for n in range(20)], None, [200, 200, 0]), WARNS),
        Mistake("D3", "three", lambda _: Seen("no"), WARNS, ("no-such-program",)),
        Mistake("E4", "four", lambda _: Seen("no"), WARNS),
    ]
    monkeypatch.setattr(show, "MISTAKES", made)
    monkeypatch.setenv(show.ONLY, "C,D")
    shown = show.run(lambda _: None)
    assert [(figure.name, figure.holds) for figure in shown.figures] == [("C1 one", True), ("D2 two", False)]
    notes = "\n".join(shown.notes)
    assert "C1 one: this; it ended with status 1\n    log: url= is wrong" in notes and "\x1b" not in notes
    assert "D2 two: that; it ran on; answers: 1 times none, 2 times 200" in notes
    assert "log: and 12 lines more\n    WRONG: 1 of 3 answers were [0]\n    WRONG: 20 lines, more than 2" in notes
    assert "D3 three: not made, no-such-program is not installed" in notes
