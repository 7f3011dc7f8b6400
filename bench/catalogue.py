"""The promises there are: found by their modules in `bench/show`, looked up by name, run.

Knows nothing about what they measure or how it is printed. A name is loaded only when it is asked for, so that one
promise whose needs are not met does not stop another.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import bench.show
from bench.show import CannotShow, Progress, Shown

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
SYSTEM_PATH = ("/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class Promise:
    """One module of `bench/show`, as its contract names it."""

    name: str
    summary: str
    run: Callable[[Progress], Shown]
    programs: tuple[str, ...] = ()
    measures: bool = False


def names() -> list[str]:
    """The names of all promises, sorted; nothing is imported."""
    found = pkgutil.iter_modules(bench.show.__path__)
    return sorted(module.name.replace("_", "-") for module in found if not module.name.startswith("_"))


def load(name: str) -> Promise:
    """The promise of this name; `CannotShow` names the nearest where there is none."""
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise CannotShow(f"there is no promise {name!r}; did you mean {near[0]!r}?" if near else "nothing is promised")
    module = importlib.import_module(f"{bench.show.__name__}.{name.replace('-', '_')}")
    return Promise(
        name=name,
        summary=module.SUMMARY,
        run=module.run,
        programs=tuple(getattr(module, "PROGRAMS", ())),
        measures=bool(getattr(module, "MEASURES", False)),
    )


def find_program(name: str) -> str:
    """The path of a program; `CannotShow` where it is not on this machine."""
    found = shutil.which(name) or shutil.which(name, path=":".join(SYSTEM_PATH))
    if found is None:
        raise CannotShow(f"{name} is not installed; try: sh scripts/apt.sh {name}")
    return found


def have_programs(programs: tuple[str, ...]) -> None:
    """Install what is missing of these where that is allowed; `CannotShow` says how where it is not."""
    if not programs:
        return
    command = ["sh", str(ROOT / "scripts" / "apt.sh"), *programs]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        told = done.stderr.strip().splitlines()
        raise CannotShow(told[-1] if told else f"could not install {' '.join(programs)}")


def show(promise: Promise) -> Shown:
    """Run one promise; its progress goes to stderr, so that stdout is only what was found."""
    have_programs(promise.programs)
    began = time.monotonic()

    def progress(line: str) -> None:
        print(f"  {time.monotonic() - began:5.0f} s  {line}", file=sys.stderr, flush=True)

    return promise.run(progress)
