"""What checkers have in common: they look, and what they find is kept, up to a limit."""

from __future__ import annotations

from sessile.simulation.checkers.scene import FINDINGS_MAX, SETTLED_MS, Checker, Findings, is_calm, record_of
from tests.simulation.scenes import calm_world


def test_findings_are_kept_up_to_a_limit() -> None:
    """More of one run say nothing new."""
    findings = Findings()
    assert not findings
    for number in range(100):
        findings.add("writes", number, "something")
    assert findings and len(findings.found) == FINDINGS_MAX


def test_a_checker_finds_under_its_name() -> None:
    """With the time."""
    world = calm_world()
    Checker(world).find("something")
    assert [(found.checker, found.at_ms) for found in world.findings.found] == [("", 500)]


def test_calm_is_who_had_no_trouble_for_long() -> None:
    """Not while something is wrong, nor soon after."""
    world = calm_world()
    process = world.living()[0]
    world.schedule.run_until(10_000)
    assert is_calm(world, process)
    world.faults.trouble([0])
    assert not is_calm(world, process)
    world.faults.relief([0])
    world.schedule.run_until(world.now_ms + SETTLED_MS // 2)
    assert not is_calm(world, process)
    world.schedule.run_until(world.now_ms + SETTLED_MS)
    assert is_calm(world, process)
    assert record_of(process, b"k" * 16) is None
