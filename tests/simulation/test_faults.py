"""Every kind of fault strikes, ends, and is remembered as long as checkers have to make allowance for it."""

from __future__ import annotations

from random import Random

import pytest

from sessile.simulation.faults import AWAKE_MS, NAP_MS
from sessile.simulation.options import FAULTS
from tests.simulation.scenes import calm_world


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_at_work_and_over(kind: str) -> None:
    """It sets its bit, troubles somebody, and when the world is healed nothing of it is left."""
    world = calm_world(nodes=4, faults=(kind,))
    faults = world.faults
    getattr(faults, "_" + kind.replace("-", "_"))(Random(3))
    assert faults.mask
    assert any(faults.calm_for_ms(place) == 0 for place in range(4)) or kind == "joins"
    world.schedule.run_until(world.now_ms + 200)
    world.heal()
    world.schedule.run_until(world.now_ms + 4_000)
    assert not faults.mask or kind in {"joins", "drains"}
    assert all(faults.calm_for_ms(process.place) > 0 for process in world.living())


def test_nobody_there_is_no_reason_to_raise() -> None:
    """Faults that need somebody, or two, do nothing without."""
    world = calm_world(nodes=2, faults=FAULTS)
    for process in list(world.living()):
        world.crash(process, is_silent=False)
    for kind in set(FAULTS) - {"joins"}:
        getattr(world.faults, "_" + kind.replace("-", "_"))(Random(3))
    assert not world.living()


def test_faults_come_while_they_are_planned() -> None:
    """As often as the options say, and none after."""
    world = calm_world(faults=("losses",), fault_every=100)
    world.faults.plan(world.now_ms + 1_000)
    broken: list[object] = []
    world.network.break_connection = broken.append  # type: ignore[method-assign, assignment]
    world.schedule.run_until(world.now_ms + 1_000)
    assert 5 <= len(broken) <= 40


def test_only_faults_of_the_network_keep_word_from_a_server() -> None:
    """Whether it was stopped or slow, its connections were whole."""
    world = calm_world(nodes=2, faults=FAULTS, threads=True)
    for kind in ("pauses", "slow", "jumps"):
        getattr(world.faults, f"_{kind}")(Random(3))
    assert min(world.linked_for_ms(place) for place in range(2)) > 1_000 > world.calm_for_ms(0) * world.calm_for_ms(1)
    world.faults._partitions(Random(3))
    assert world.linked_for_ms(0) == world.linked_for_ms(1) == 0
    world.heal()
    world.schedule.run_until(world.now_ms + 500)
    assert world.linked_for_ms(0) == world.linked_for_ms(1) == 500 and not world.living()[0].is_paused


def test_naps_are_long_and_one_at_a_time() -> None:
    """Sessions end meanwhile. Whoever is awake can tell of them, so nobody else naps until that has been done."""
    world = calm_world(nodes=3, faults=("pauses",), naps=True)
    world.faults._pauses(Random(3))
    (napping,) = [process for process in world.living() if process.is_paused]
    for _ in range(20):
        world.faults._pauses(Random(4))
    world.schedule.run_until(world.now_ms + NAP_MS[0] - 1)
    assert [process for process in world.living() if process.is_paused] == [napping]
    world.schedule.run_until(world.now_ms + NAP_MS[1] - NAP_MS[0] + 2)
    world.faults._pauses(Random(4))
    assert not any(process.is_paused for process in world.living())
    world.schedule.run_until(world.now_ms + AWAKE_MS)
    world.faults._pauses(Random(4))
    assert sum(process.is_paused for process in world.living()) == 1
