"""The mutants: the lists fit the source, edits are made and named right, and forks and copies say what tests would."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from bench.mutants import campaign, generate, mutant, plan
from bench.mutants.campaign import Campaign, Options, Scores
from bench.mutants.mutant import Mutant
from bench.show import mutants as promise

if TYPE_CHECKING:
    from pathlib import Path

PEER = "src/sessile/replication/peer.py"
SMALL = plan.Group("small", ("replication.peer",), ("tests/replication/test_peer.py",))


def edit(search: str, replace: str, file: str = PEER) -> Mutant:
    """The edit of a text that stands once in a file."""
    text = (mutant.ROOT / file).read_text()
    assert text.count(search) == 1, search
    begin = text.index(search)
    return Mutant(file, "ByHand", text.count("\n", 0, begin) + 1, begin, begin + len(search), replace)


def test_what_is_listed_by_hand_is_found_in_the_source() -> None:
    """Each text is there exactly once and its tests exist: a list that no longer fits would notice nothing."""
    listed = mutant.handmade()
    assert len({each.title for each in listed}) == len(listed) > 20
    for each in listed:
        assert each.apply() != (mutant.ROOT / each.file).read_text(), each.title


def test_a_text_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """Also one that is found twice, and one whose tests are gone."""
    entry = '[[mutant]]\nname = "x"\nfile = "{}"\nsearch = "{}"\nreplace = ""\ntests = ["{}"]\n'
    path = tmp_path / "list.toml"
    for file, search, tests, problem in (
        (PEER, "no such text", "tests/replication/test_peer.py", "found 0 times"),
        (PEER, "self", "tests/replication/test_peer.py", "found [0-9]+ times"),
        (PEER, "self.acked = upto", "tests/no_such_test.py", "not there"),
    ):
        path.write_text(entry.format(file, search, tests))
        with pytest.raises(ValueError, match=problem):
            mutant.handmade(path)


def test_every_equivalent_one_has_a_reason(tmp_path: Path) -> None:
    """The list is read, and each entry is of a module that is mutated and of a line that is there."""
    modules = {module for group in plan.GROUPS for module in group.modules}
    for each in mutant.equivalents():
        assert each.module in modules, each
        text = " ".join((mutant.ROOT / "src/sessile" / f"{each.module.replace('.', '/')}.py").read_text().split())
        assert each.before in text, each
    path = tmp_path / "list.toml"
    path.write_text('[[equivalent]]\nmodule = "delta"\nfunction = ""\nbefore = ""\nreason = "so"\n')
    with pytest.raises(ValueError, match="no reason"):
        mutant.equivalents(path)


def test_every_module_is_mutated_once_and_has_tests() -> None:
    """A module that is renamed stays on the list, under its new name."""
    modules = [module for group in plan.GROUPS for module in group.modules]
    assert len(set(modules)) == len(modules)
    for group in plan.GROUPS:
        tests = {path.name for path in group.files()}
        for module in group.modules:
            assert (mutant.ROOT / "src/sessile" / f"{module.replace('.', '/')}.py").is_file(), module
            assert f"test_{module.rpartition('.')[2]}.py" in tests, module


def test_our_own_operators() -> None:
    """Statements with an effect, membership, extremes and handlers are edited; annotations and messages are not."""
    text = """
LIMIT = 4_000
def tell(names: list[int], known) -> None:
    if not names or 3 not in known:
        raise ValueError(min(names))
    try:
        known.add(max(names))
    except (KeyError, TypeError):
        known.x = 1
    del known[0]
"""
    made = generate.by_us(generate.Source(text))
    changed = sorted(
        (str(each["operator"]), text[int(each["begin"]) : int(each["end"])], str(each["text"])) for each in made
    )
    assert changed == [
        ("LeaveOut", "del known[0]", "pass"),
        ("LeaveOut", "known.add(max(names))", "pass"),
        ("LeaveOut", "known.x = 1", "pass"),
        ("LetPass", "KeyError", "TypeError"),
        ("LetPass", "TypeError", "KeyError"),
        ("SwapIn", "not in", "in"),
        ("SwapMinMax", "max", "min"),
    ]


def test_a_mutant_is_named_by_its_function_and_its_line() -> None:
    """Not by the line's number, so that its entry among the equivalent ones outlives other changes."""
    one = edit("self.outstanding_bytes += size", "pass")
    assert (one.module, one.function) == ("replication.peer", "Peer.sequence")
    assert (one.before, one.after) == ("self.outstanding_bytes += size", "pass")
    assert not edit("_USUAL_MS: Final = 2.0", "_USUAL_MS: Final = 3.0").path


def test_forks_and_copies_find_what_the_tests_find(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that falls, one that hangs, one that survives, one outside of any function."""
    monkeypatch.setattr(campaign, "CACHE", tmp_path)
    monkeypatch.setattr(campaign, "GRACE_S", 2.0)
    falls = edit("self.outstanding_bytes += size", "pass")
    loops = edit("while self.outstanding and self.outstanding[0].number <= upto:", "while True:\n            continue")
    stays = edit("self.acked = upto", "self.acked = upto + 0")
    cold = edit("_USUAL_MS: Final = 2.0", "_USUAL_MS: Final = None")
    run = Campaign(Options(), lambda _: None, kept=tmp_path / "results.json")
    run._results["small"] = {}
    run._run_group(SMALL, [falls, loops, stays, cold], time.monotonic() + 300)
    assert [run._last(each) for each in (falls, loops, stays, cold)] == ["killed", "killed", "survived", "killed"]
    assert (tmp_path / "results.json").is_file()
    assert not run.notes


def test_a_survivor_in_a_list_of_ours_is_enough() -> None:
    """The verdict: the score of all together, and none of those that are listed by hand."""
    good, listed = Scores("all", made=100, killed=95), Scores("handmade", made=1, killed=1)
    survivor = edit("self.acked = upto", "pass")
    assert promise.judged(listed, [good], good, []).holds
    assert not promise.judged(Scores("handmade", made=1, survivors=[survivor]), [good], good, []).holds
    assert not promise.judged(listed, [], Scores("all", made=100), []).holds
    bad = Scores("all", made=100, killed=94, survivors=[survivor] * 6)
    shown = promise.judged(listed, [bad], bad, [])
    assert not shown.holds
    assert any("Peer.take_acked" in note for note in shown.notes)
