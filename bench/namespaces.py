"""Machines on one host: network namespaces, joined pair by pair, so that each direction of each pair can be cut.

Every pair has a bridge of its own, in a namespace that only has bridges. Bridges learn nothing and neighbours are entered by
hand, so a frame passes when the port behind which its receiver is floods, and is dropped without a word when it does not:
no reset, no unreachable, no carrier lost. Needs root, Linux and `ip`. Everything is gone when the block is left; what an earlier
run left behind because it was killed is removed first.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.show import CannotShow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Namespaces", "namespaces"]

PREFIX: Final = "sessile-"
NODE_PORT: Final = 7400
_REGISTERED: Final = Path("/run/netns")


@dataclass(frozen=True)
class Namespaces:
    """Namespaces that reach each other until they are cut apart."""

    names: tuple[str, ...]
    bridges: str
    """The namespace in which the bridges are."""

    @property
    def addresses(self) -> list[str]:
        """Where a node listens in each of them."""
        return [f"{_address(place)}:{NODE_PORT}" for place in range(len(self.names))]

    def cut(self, ways: Iterable[tuple[int, int]]) -> None:
        """From now on nothing goes from the first of each pair to the second."""
        self._set(ways, "off")

    def heal(self) -> None:
        """Everything reaches everybody again."""
        self._set(itertools.permutations(range(len(self.names)), 2), "on")

    def _set(self, ways: Iterable[tuple[int, int]], floods: str) -> None:
        """All in one go, so that a cut is one moment."""
        _batch(
            (f"link set dev p{to}{source} type bridge_slave flood {floods}" for source, to in ways),
            inside=self.bridges,
        )


@contextlib.contextmanager
def namespaces(count: int) -> Iterator[Namespaces]:
    """So many of them, at most nine.

    Raises:
        CannotShow: this is not Linux, not root, or without what is needed.
    """
    if os.name != "posix" or os.geteuid() != 0:
        raise CannotShow("network namespaces need root: run it as root (sudo make show NAME=partition), on Linux")
    _remove_old()
    run = f"{PREFIX}{os.getpid()}"
    made = Namespaces(tuple(f"{run}-{place}" for place in range(count)), f"{run}-bridges")
    try:
        _batch(f"netns add {name}" for name in (*made.names, made.bridges))
        _batch(_layout(made))
        _batch(_bridges(count), inside=made.bridges)
        for place, name in enumerate(made.names):
            _batch(_inside(place, count), inside=name)
        yield made
    finally:
        for name in (*made.names, made.bridges):
            _remove(name)


def _address(place: int) -> str:
    return f"10.77.0.{place + 1}"


def _hardware(place: int, other: int) -> str:
    """Of the interface by which a namespace reaches another."""
    return f"02:00:00:00:{place:02x}:{other:02x}"


def _layout(made: Namespaces) -> Iterator[str]:
    """Each pair's two cables, from a namespace to a port among the bridges."""
    for place, other in itertools.permutations(range(len(made.names)), 2):
        yield (
            f"link add to{other} netns {made.names[place]} address {_hardware(place, other)} type veth "
            f"peer name p{place}{other} netns {made.bridges}"
        )


def _bridges(count: int) -> Iterator[str]:
    for place, other in itertools.combinations(range(count), 2):
        yield f"link add b{place}{other} type bridge"
        yield f"link set b{place}{other} up"
    for place, other in itertools.permutations(range(count), 2):
        yield f"link set p{place}{other} master b{min(place, other)}{max(place, other)} up"
        yield f"link set dev p{place}{other} type bridge_slave learning off"


def _inside(place: int, count: int) -> Iterator[str]:
    yield "link set lo up"
    yield f"addr add {_address(place)}/32 dev lo"
    for other in range(count):
        if other != place:
            yield f"link set to{other} up"
            yield f"route add {_address(other)}/32 dev to{other} src {_address(place)}"
            yield f"neigh replace {_address(other)} lladdr {_hardware(other, place)} dev to{other} nud permanent"


def _batch(commands: Iterable[str], inside: str = "") -> None:
    """Run `ip` commands; `CannotShow` names the one that failed."""
    text = "\n".join(commands)
    prefix = ("ip", "netns", "exec", inside) if inside else ()
    try:
        done = subprocess.run((*prefix, "ip", "-batch", "-"), input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotShow("there is no program `ip`; try: sh scripts/apt.sh iproute2") from None
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise CannotShow(f"this machine makes no such network ({said}): it needs namespaces, veth and bridges")


def _remove_old() -> None:
    """What runs that were killed left behind."""
    for path in _REGISTERED.glob(f"{PREFIX}*") if _REGISTERED.is_dir() else ():
        pid = path.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _remove(path.name)


def _remove(name: str) -> None:
    subprocess.run(("ip", "netns", "del", name), capture_output=True, check=False)
