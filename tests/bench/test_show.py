"""How promises are found, run, judged and printed."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from bench import __main__ as bench_main
from bench import catalogue, report
from bench.show import CannotShow, Figure, Shown
from bench.show import __main__ as show_main

if TYPE_CHECKING:
    from pathlib import Path

    from bench.show import Progress

GOOD = Figure("lost updates", 0, "", "= 0", holds=True)
BAD = Figure("memory", 512.25, "B", "<= 450", holds=False, peer="Tomcat", peer_value=1_204)
INFORMATION = Figure("requests", 48_799, "/s")


def promise(name: str, *figures: Figure, measures: bool = False, programs: tuple[str, ...] = ()) -> ModuleType:
    """A module of `bench/show`, made up."""
    module = ModuleType(f"bench.show.{name}")

    def run(progress: Progress) -> Shown:
        progress("working")
        return Shown(name.replace("_", "-"), list(figures), ["a note"])

    vars(module).update(SUMMARY=f"what {name} promises", MEASURES=measures, PROGRAMS=programs, run=run)
    return module


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A catalogue of four made-up promises, and the folder where what they find is saved."""
    modules = {
        "all-well": promise("all_well", GOOD, INFORMATION, measures=True),
        "falls-short": promise("falls_short", GOOD, BAD, measures=True),
        "judges-nothing": promise("judges_nothing", INFORMATION),
        "needs-much": promise("needs_much", GOOD, programs=("no-such-program",)),
    }
    for module in modules.values():
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(catalogue, "names", lambda: sorted(modules))
    monkeypatch.setattr(report.save, "__defaults__", (tmp_path,))
    return tmp_path


def test_every_promise_of_the_tree_can_be_loaded() -> None:
    """Each module of `bench/show` keeps its contract: a sentence, something to run, and its options."""
    assert catalogue.names() == sorted(catalogue.names())
    for name in catalogue.names():
        loaded = catalogue.load(name)
        assert loaded.summary.endswith("."), name
        assert callable(loaded.run), name
        assert all(isinstance(program, str) for program in loaded.programs), name


def test_without_a_name_all_are_listed(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make show` names every promise with its sentence; as JSON too."""
    assert show_main.main([]) == 0
    printed = capsys.readouterr().out
    assert "all-well        what all_well promises" in printed
    assert "judges-nothing" in printed
    assert show_main.main(["--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == catalogue.names()


@pytest.mark.parametrize(("name", "status", "word"), [("all-well", 0, "HOLDS"), ("falls-short", 1, "FALLS SHORT")])
def test_a_promise_is_shown_with_its_verdict(
    results: Path, capsys: pytest.CaptureFixture[str], name: str, status: int, word: str
) -> None:
    """The last line is the verdict, the exit status says the same, and what was found is saved."""
    assert show_main.main([name]) == status
    assert capsys.readouterr().out.strip().splitlines()[-1] == f"{name}: {word}"
    saved = json.loads((results / f"{name}.json").read_text())
    assert saved["holds"] is (status == 0)
    assert saved["figures"][0]["name"] == "lost updates"


def test_one_bound_that_is_not_kept_is_enough(results: Path) -> None:
    """A promise holds when every bounded figure does; one that judges nothing does not hold."""
    assert Shown("x", [GOOD, INFORMATION]).holds
    assert not Shown("x", [GOOD, BAD]).holds
    assert not Shown("x", [INFORMATION]).holds
    assert show_main.main(["judges-nothing"]) == 1


def test_json_is_all_that_stands_on_stdout(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--json` the figures can be read by a program; progress goes to stderr."""
    assert show_main.main(["falls-short", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["figures"][1]["peer_value"] == 1_204
    assert "working" in captured.err


def test_an_unknown_name_gets_the_nearest(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, with the name that was probably meant, and status 1."""
    assert show_main.main(["fall-short"]) == 1
    assert capsys.readouterr().err == "make show: there is no promise 'fall-short'; did you mean 'falls-short'?\n"


def test_a_promise_whose_programs_cannot_be_had_is_not_run(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it needs is said in one line, and nothing is saved as if it had been shown."""

    def refuse(programs: tuple[str, ...]) -> None:
        if programs:
            raise CannotShow(f"missing: {programs[0]}")

    monkeypatch.setattr(catalogue, "have_programs", refuse)
    assert show_main.main(["needs-much"]) == 1
    assert capsys.readouterr().err.endswith("make show: missing: no-such-program\n")
    assert not list(results.iterdir())


def test_bench_runs_what_measures_as_one_table(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make bench` prints one table of the measuring promises, saves each, and fails if one falls short."""
    assert bench_main.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["promise", "figure", "value", "bound", "peer"]
    assert [line.split()[0] for line in lines[1:5]] == ["all-well", "all-well", "falls-short", "falls-short"]
    assert lines[-2:] == ["all-well: HOLDS", "falls-short: FALLS SHORT"]
    assert sorted(path.stem for path in results.iterdir()) == ["all-well", "falls-short"]


@pytest.mark.parametrize(
    ("value", "printed"),
    [(0, "0"), (100_000, "100 000"), (0.41234, "0.412"), (18.26, "18.3"), (1_204.6, "1 205"), (99.95, "100")],
)
def test_numbers_are_printed_with_what_they_say(value: float, printed: str) -> None:
    """Counts in full, measured numbers with three figures."""
    assert report.number(value) == printed


def test_a_program_is_found_or_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A missing program is an error that says how to have it."""
    assert catalogue.find_program("sh").endswith("/sh")
    with pytest.raises(CannotShow, match=r"sh scripts/apt\.sh no-such-program"):
        catalogue.find_program("no-such-program")
