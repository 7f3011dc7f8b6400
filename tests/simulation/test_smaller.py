"""What still fails is made smaller, and nothing else is."""

from __future__ import annotations

from sessile.simulation.options import BEHAVIOURS, FAULTS, Options
from sessile.simulation.smaller import smallest


def test_only_what_is_needed_stays() -> None:
    """Two faults and three nodes are needed: all the rest goes."""
    big = Options(nodes=6, browsers=3, requests=60, faults=FAULTS, behaviours=BEHAVIOURS, epilogue=True, directory=True)

    def fails(options: Options) -> bool:
        return {"crashes", "pauses"} <= set(options.faults) and options.nodes >= 3

    small = smallest(big, fails)
    assert set(small.faults) == {"crashes", "pauses"} and small.behaviours == ()
    assert (small.nodes, small.browsers, small.requests, small.epilogue, small.directory) == (3, 1, 1, False, False)


def test_tries_are_bounded() -> None:
    """One that takes long is left as small as it is by then."""
    tries: list[Options] = []

    def fails(options: Options) -> bool:
        tries.append(options)
        return False

    smallest(Options(faults=FAULTS), fails, tries_max=5)
    assert len(tries) == 5
