"""The shape of the tree, held by reading it: mirror tests, pure modules, the direction of imports, sizes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "sessile"
UNMIRRORED = {"__init__", "__main__"}

PURE = (
    "backend",
    "changes",
    "items",
    "classes",
    "codec",
    "cookies",
    "delta",
    "ends",
    "record",
    "strength",
    "table",
    "token",
    "balancer.affinity",
    "balancer.algorithms",
    "balancer.bodies",
    "balancer.health",
    "balancer.refusals",
    "balancer.request_fields",
    "balancer.request_head",
    "balancer.requests",
    "balancer.responses",
    "balancer.usual",
    "network.troubles",
    "replication",
    "shown",
)
"""Modules, and whole packages, to which time, chance and the world are arguments."""
NOT_YET: set[str] = set()
IMPURE_IMPORTS = {"asyncio", "logging", "os", "random", "secrets", "socket", "threading", "time", "uvloop"}

LAYERS = (
    {
        "blocking",
        "clock",
        "counts",
        "ends",
        "errors",
        "forks",
        "keywords",
        "overview",
        "shown",
        "strategies",
        "strength",
        "tasks",
        "watchers",
    },
    {
        *{"classes", "codec", "delta", "record", "table", "token"},
        *{"addresses", "kinds", "relations", "settings", "sources", "urls"},
    },
    {"backend", "changes", "cookies", "credentials", "items", "portal", "service", "session", "visit"},
    {"replication"},
    {"agent", "network", "stores"},
    {"connect", "engine", "sweeper"},
    {"balancer"},
    {"answers", "asgi", "gunicorn", "lifespan", "servers", "status", "wsgi"},
    {"testing"},
    {"simulation"},
    {"cli", "dashboard", "lab"},
)
"""From the ground up: a part imports its own layer and those below. A new part is entered here."""
BALANCER_SEES = {"balancer", "cookies", "errors", "kinds", "settings", "token"}
"""The balancer routes sessions without opening them: of the core it may use only this."""

FUNCTION_LINES_MAX = 70


def module_name(path: Path) -> str:
    """`balancer.health` for `src/sessile/balancer/health.py`; a package's name for its `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_name(path): path for path in SOURCES}
TREES = [path for folder in ("src", "tests", "bench", "scripts", "examples") for path in (ROOT / folder).rglob("*.py")]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def runtime_nodes(node: ast.AST) -> list[ast.AST]:
    """Every node under this one but those that only a type checker reads."""
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        found += [child, *runtime_nodes(child)]
    return found


def imports(path: Path) -> set[str]:
    """The full dotted names a file imports when it runs, wherever in it the import stands."""
    names: set[str] = set()
    package = ("sessile", *path.relative_to(PACKAGE).parts[:-1])
    for node in runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            names.update(f"{source}.{alias.name}" for alias in node.names)
    return names


def own_imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, without the package's name: `balancer.health`."""
    found: set[str] = set()
    for name in imports(path):
        if name.partition(".")[0] != "sessile" or name == "sessile.__version__":
            continue
        inner = name.partition(".")[2]
        # `from sessile.record import Record`: the module is the longest part of the name that is one.
        while inner and inner not in MODULES:
            inner = inner.rpartition(".")[0]
        found.add(inner)
    return found


def is_pure(module: str) -> bool:
    return any(module == pure or module.startswith(f"{pure}.") for pure in PURE)


def layer(module: str) -> int:
    """How far above the ground a module stands; the package itself and `python -m sessile` on top of all."""
    unit = module.partition(".")[0]
    if unit in {"", "__main__"}:
        return len(LAYERS)
    places = [number for number, units in enumerate(LAYERS) if unit in units]
    assert len(places) == 1, f"sessile.{unit} has no place in LAYERS"
    return places[0]


@pytest.mark.parametrize("path", [path for path in SOURCES if path.stem not in UNMIRRORED], ids=relative)
def test_every_module_has_its_test_file(path: Path) -> None:
    """`src/sessile/x/y.py` is tested in `tests/x/test_y.py`."""
    mirror = ROOT / "tests" / path.relative_to(PACKAGE).with_name(f"test_{path.name}")
    assert mirror.is_file(), f"{relative(path)} has no {relative(mirror)}"


@pytest.mark.parametrize("module", [module for module in MODULES if is_pure(module)])
def test_a_pure_module_reaches_no_clock_chance_or_world(module: str) -> None:
    """Time and randomness are arguments of the core: it imports nothing that brings them, not by way of ours either."""
    path = MODULES[module]
    roots = {name.partition(".")[0] for name in imports(path)}
    assert not roots & IMPURE_IMPORTS
    impure = {own for own in own_imports(path) if own and own != "errors" and not is_pure(own)}
    assert not impure, f"{module} is pure and imports {impure}"


def test_the_pure_modules_are_there() -> None:
    """A pure module that is renamed stays on the list, under its new name."""
    assert set(PURE) - MODULES.keys() == NOT_YET


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    """Adapters see the engine, the engine sees the core, and never the other way round."""
    own = {target for target in own_imports(MODULES[module]) if target}
    upward = {target for target in own if layer(target) > layer(module)}
    assert not upward, f"sessile.{module} imports {upward}, which stand above it"
    if module.partition(".")[0] == "balancer":
        assert {target.partition(".")[0] for target in own} <= BALANCER_SEES


def test_a_module_below_does_not_import_the_whole_package() -> None:
    """`from sessile import Engine` is for users: inside, everybody names the module they mean."""
    users = {"", "__main__", "cli", "lab", "dashboard"}
    lazy = [
        module for module, path in MODULES.items() if module.partition(".")[0] not in users and "" in own_imports(path)
    ]
    assert not lazy


def function_lengths(path: Path) -> list[tuple[str, int]]:
    return [
        (f"{relative(path)}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def test_no_function_is_too_long() -> None:
    """Seventy lines are the end of what one can hold in the head."""
    long = [name for path in TREES for name, lines in function_lengths(path) if lines > FUNCTION_LINES_MAX]
    assert not long


def test_make_test_installs_what_the_tests_need(request: pytest.FixtureRequest) -> None:
    """A test may need a program only if `make test`, or `make test-full` for a slow one, would install it."""
    makefile = (ROOT / "Makefile").read_text()
    lists = dict(re.findall(r"^(TEST|FULL)_PROGRAMS *:= *(.*)$", makefile, re.MULTILINE))
    normal, full = set(lists["TEST"].split()), set(lists["FULL"].split())
    for item in request.session.items:
        needed = {program for marker in item.iter_markers("needs") for program in marker.args}
        installed = normal | full if item.get_closest_marker("slow") else normal
        assert needed <= installed, f"{item.nodeid} needs {needed - installed}"
