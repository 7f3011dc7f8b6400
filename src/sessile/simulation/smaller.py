"""The smallest set of options under which a seed still finds something.

Faults and behaviours are left out one by one, then numbers are made smaller; what still fails is kept. A smaller run is
another run, so it need not find the very same thing: any finding will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessile.simulation.options import Options

__all__ = ["smallest"]

TRIES_MAX: Final = 200
_NUMBERS: Final = (("requests", 1), ("browsers", 1), ("nodes", 1), ("duration", 100))
_PLAIN: Final = {"epilogue": False, "encore": False, "directory": False}


def smallest(options: Options, still_fails: Callable[[Options], bool], *, tries_max: int = TRIES_MAX) -> Options:
    """Leave out of these options whatever is not needed for `still_fails`, trying so many sets at the most."""
    tries = 0
    is_smaller = True
    while is_smaller and tries < tries_max:
        is_smaller = False
        for candidate in _smaller(options):
            tries += 1
            if still_fails(candidate):
                options, is_smaller = candidate, True
                break
            if tries >= tries_max:
                break
    return options


def _smaller(options: Options) -> Iterator[Options]:
    """Sets that are a step smaller, the largest steps first."""
    for name in ("faults", "behaviours"):
        kinds = getattr(options, name)
        if len(kinds) > 1:
            yield options.but(**{name: ()})
            yield options.but(**{name: kinds[: len(kinds) // 2]})
            yield options.but(**{name: kinds[len(kinds) // 2 :]})
        for kind in kinds:
            yield options.but(**{name: tuple(other for other in kinds if other != kind)})
    for name, value in _PLAIN.items():
        if getattr(options, name) is not value:
            yield options.but(**{name: value})
    for name, least in _NUMBERS:
        number = getattr(options, name)
        for less in (number // 2, number * 3 // 4, number - 1):
            if least <= less < number:
                yield options.but(**{name: less})
