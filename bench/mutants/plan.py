"""The modules that are mutated, and the tests that run against each: its own, and those of its neighbours."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench import environments
from bench.mutants.mutant import PACKAGE, ROOT, Mutant
from bench.show import CannotShow

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CACHE", "GROUPS", "Group", "fingerprint", "mutants_of"]

CACHE: Final = ROOT / ".cache" / "mutants"
TOOL: Final = "cosmic-ray"


@dataclass(frozen=True, slots=True)
class Group:
    """Modules whose tests are collected together."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    """Patterns; the mirror file of each module is among them."""

    def files(self) -> list[Path]:
        """The test files, each once."""
        found = [path for pattern in self.tests for path in sorted(ROOT.glob(pattern))]
        assert found, f"the group {self.name} has no tests"
        return list(dict.fromkeys(found))


GROUPS: Final = (
    Group(
        "core",
        ("delta", "token", "changes", "codec", "classes", "record", "ends", "table", "items"),
        (
            *(f"tests/test_{name}*.py" for name in ("delta", "token", "changes", "codec", "classes", "record", "ends")),
            "tests/test_items.py",
            *(f"tests/test_{name}*.py" for name in ("table", "session", "engine", "bounds")),
            "tests/replication/test_repl*.py",
        ),
    ),
    Group(
        "replication",
        tuple(
            f"replication.{name}"
            for name in (
                *("placement", "wire", "directory", "dials", "peer", "seeding", "replica", "messages", "events"),
                *("pulse", "touches", "holding"),
                *("config", "context", "intake", "member", "membership", "links", "tombstones", "telling"),
                *("node", "pulls", "pushes", "repair"),
            )
        ),
        ("tests/replication/test_*.py", "bench/mutants/simulated.py"),
    ),
    Group(
        "stores",
        tuple(
            f"stores.{name}"
            for name in (
                *("touches", "recent", "lines", "questions", "leases", "outage"),
                *("lost", "epoch", "confirmations", "pulls"),
                *("redis_address", "sql_errors", "sql_rows"),
            )
        ),
        (
            *(
                f"tests/stores/test_{name}.py"
                for name in ("touches", "recent", "lines", "questions", "leases", "outage")
            ),
            *(f"tests/stores/test_{name}.py" for name in ("lost", "epoch", "confirmations", "pulls")),
            *(f"tests/stores/test_{name}.py" for name in ("redis_address", "sql_errors", "sql_rows")),
            "tests/stores/test_shared*.py",
        ),
    ),
)
"""In the order in which they run."""


def mutants_of(module: str) -> list[Mutant]:
    """All mutants that the tool makes of a module, kept until its text changes. Raises CannotShow without the tool."""
    file = f"{PACKAGE}{module.replace('.', '/')}.py"
    made_from = [(ROOT / file).read_bytes(), (ROOT / "bench" / "mutants" / "generate.py").read_bytes()]
    kept = CACHE / f"{module}-{_digest(made_from)}.json"
    if not kept.is_file():
        command = [str(environments.python_of(TOOL)), "-m", "bench.mutants.generate", file]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotShow(f"{TOOL} failed on {file}: {done.stderr.strip().splitlines()[-1]}")
        CACHE.mkdir(parents=True, exist_ok=True)
        for old in CACHE.glob(f"{module}-*.json"):
            old.unlink()
        whole = kept.with_suffix(".new")
        whole.write_text(json.dumps(json.loads(done.stdout)[file]))
        whole.rename(kept)
    return [Mutant(file=file, **edit) for edit in json.loads(kept.read_text())]


def fingerprint(group: Group) -> str:
    """A hash of the group's source and tests: results count as long as it stays the same."""
    sources = sorted((ROOT / "src").rglob("*.[pl][yu]*"))
    tests = sorted(path for path in (ROOT / "tests").rglob("*.py"))
    near = {*group.files(), *(path for path in tests if not path.name.startswith("test_"))}
    return _digest([path.read_bytes() for path in (*sources, *sorted(near)) if path.suffix in {".py", ".lua"}])


def _digest(parts: list[bytes]) -> str:
    return hashlib.blake2b(b"".join(parts) + sys.version.encode(), digest_size=8).hexdigest()
