"""Every class that owns a socket, a thread, an event loop or a lock is forgotten in a forked child: found by reading the source."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "sessile"

EXCLUDED = {
    "balancer": "serves no app; its parent forks workers before it has a loop or a socket, and each makes its own",
    "cli": "commands, each a process of its own that forks nothing but the balancer's workers",
    "dashboard": "part of the demo's own process, which starts others and forks none",
    "lab": "the same",
    "simulation": "has no sockets and threads; its campaign forks before it begins",
}
"""Parts that serve no app, each with the reason why a fork does them no harm."""

THREADING = {
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "Semaphore",
    "Thread",
    "Timer",
    "local",
}
ASYNCIO = {
    *{
        "BoundedSemaphore",
        "Condition",
        "Event",
        "Future",
        "Lock",
        "LifoQueue",
        "PriorityQueue",
        "Queue",
        "Runner",
        "Semaphore",
    },
    *{"create_task", "ensure_future", "get_event_loop", "get_running_loop", "new_event_loop"},
    *{"open_connection", "open_unix_connection", "start_server", "start_unix_server"},
}
ANYWHERE = {
    *{"create_connection", "create_datagram_endpoint", "create_server", "create_unix_connection", "create_unix_server"},
    *{"connect_accepted_socket", "create_future", "create_task"},
    *{"connect", "create_async_engine", "create_engine", "socketpair"},
    *{"ThreadPoolExecutor", "ProcessPoolExecutor"},
}
"""Calls that make such a thing, whatever they are called on."""
SOCKET = {"create_connection", "create_server", "fromfd", "socket", "socketpair"}
BY_CALL = {"connected", "connection_made", "make_connection"}
"""Methods of ours and of protocols that come by a connection: whoever has or awaits one owns it."""


@dataclass
class Owner:
    """A class of the package."""

    name: str
    place: str
    bases: tuple[str, ...]
    owns: set[str] = field(default_factory=set)
    is_registered: bool = False
    dropped_by: str = ""
    reason: str = ""


def made(call: ast.Call) -> str:
    """Which of such things this call makes; empty for another call."""
    match call.func:
        case ast.Attribute(value=ast.Name(id="threading"), attr=name) if name in THREADING:
            return f"threading.{name}"
        case ast.Attribute(value=ast.Name(id="asyncio"), attr=name) if name in ASYNCIO:
            return f"asyncio.{name}"
        case ast.Attribute(value=ast.Name(id="socket"), attr=name) if name in SOCKET:
            return f"socket.{name}"
        case ast.Attribute(attr=name) | ast.Name(id=name) if name in ANYWHERE | BY_CALL:
            return name
    return ""


def is_kept(node: ast.AST) -> bool:
    """Whether this statement keeps something in an object: `self.x = …`, `self.x[k] = …`, `self.x: T = …`."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    inner = [part for target in targets for part in ast.walk(target)]
    return any(isinstance(part, ast.Name) and part.id == "self" for part in inner)


IN_PASSING = {"get_event_loop", "get_running_loop", "create_future", "create_task", "ensure_future"}
"""What may be made without being kept: then it belongs to the call, or to the loop that runs it."""
THE_MECHANISM = "_Registry"
"""It makes its own lock anew before anything else (tests/test_forks.py)."""


def owned(body: ast.ClassDef) -> set[str]:
    """What objects of a class keep of this kind."""
    found = set()
    for node in ast.walk(body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == "connection_made":
            found.add("a transport")
        for call in (part for part in ast.walk(node) if isinstance(part, ast.Call)) if is_kept(node) else ():
            if name := made(call):
                found.add(name)
    for call in (node for node in ast.walk(body) if isinstance(node, ast.Call)):
        name = made(call)
        if name and name.rpartition(".")[2] not in IN_PASSING:
            found.add(name)
    return found


def decorated(body: ast.ClassDef) -> tuple[str, str]:
    """The owner that drops objects of a class, and how."""
    for decorator in body.decorator_list:
        match decorator:
            case ast.Call(
                func=ast.Name(id="dropped_by"), args=[ast.Constant(value=str(owner)), ast.Constant(value=str(why))]
            ):
                return owner, why
    return "", ""


def is_registered(body: ast.ClassDef) -> bool:
    """Whether its objects register themselves."""
    names = (node.func for node in ast.walk(body) if isinstance(node, ast.Call))
    return any(isinstance(name, ast.Name) and name.id == "call_after_fork" for name in names)


def classes_of(source: str, place: str) -> list[Owner]:
    """The classes of a module, those within others included."""
    found = []
    for body in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)):
        bases = tuple(ast.unparse(base).rpartition(".")[2] for base in body.bases)
        owner, reason = decorated(body)
        found.append(Owner(body.name, place, bases, owned(body), is_registered(body), owner, reason))
    return found


def loose(source: str) -> set[str]:
    """What a module itself makes of this kind, or a function of it keeps for ever in a global."""
    found = set()
    for node in ast.parse(source).body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found |= {made(call) for call in ast.walk(node) if isinstance(call, ast.Call)}
    return found - {""}


def modules() -> dict[str, str]:
    return {
        str(path.relative_to(PACKAGE)): path.read_text()
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in EXCLUDED
    }


CLASSES = [owner for place, source in modules().items() for owner in classes_of(source, place)]


def is_forgotten(owner: Owner, classes: list[Owner]) -> bool:
    """Whether it registers itself, a base of its does, or it is dropped by a class of which that is so."""
    named = {each.name: each for each in classes}
    if (
        owner.is_registered
        or owner.name == THE_MECHANISM
        or any(base in named and is_forgotten(named[base], classes) for base in owner.bases)
    ):
        return True
    rest = [each for each in classes if each is not owner]
    return owner.dropped_by in named and bool(owner.reason) and is_forgotten(named[owner.dropped_by], rest)


def test_every_owner_is_forgotten() -> None:
    """A new class that owns one registers with `sessile.forks`, or says who drops it."""
    missed = [
        f"{owner.place}: {owner.name} owns {', '.join(sorted(owner.owns))}: register it with sessile.forks.call_after_fork, "
        "or say dropped_by(owner, reason)"
        for owner in CLASSES
        if owner.owns and not is_forgotten(owner, CLASSES)
    ]
    assert not missed


def test_no_module_owns_one_by_itself() -> None:
    """What belongs to no object could not be forgotten."""
    assert not {place: found for place, source in modules().items() if (found := loose(source))}


def test_the_owners_there_are_were_found() -> None:
    """Those that everybody knows of: a walk that finds nothing would demand nothing."""
    found = {owner.name for owner in CLASSES if owner.owns}
    known = {"Connection", "Credentials", "Door", "Engine", "Lines", "Links", "Outage", "Portal", "Runtime"}
    assert known | {"Service", "Single", "Sweeper", "SqlStore", "_Subscription"} <= found


def test_who_says_who_drops_it_owns_one() -> None:
    """A declaration that is needed no more goes."""
    assert not [owner.name for owner in CLASSES if owner.dropped_by and not owner.owns]


@pytest.mark.parametrize("part", EXCLUDED)
def test_what_is_excluded_is_there(part: str) -> None:
    """And serves no app: nothing else of the package imports it."""
    assert (PACKAGE / part).is_dir()
    for place, source in modules().items():
        assert f"from sessile.{part}" not in source or place in {"__main__.py", "testing.py"}, place


PLANTED = {
    "a lock": "class A:\n    def __init__(self):\n        self.x = threading.Lock()",
    "a thread": "class A:\n    def go(self):\n        threading.Thread(target=self.go).start()",
    "a loop": "class A:\n    def __init__(self):\n        self.loop = asyncio.get_running_loop()",
    "a connection": "class A:\n    async def go(self):\n        self._to = await asyncio.open_connection('a', 1)",
    "a socket": "class A:\n    def __init__(self):\n        self.x: Any = socket.socket()",
    "a task": "class A:\n    def go(self):\n        self.tasks[0] = loop.create_task(self.go())",
    "a pool": "class A:\n    def go(self):\n        engine = create_async_engine(self.url)",
    "a protocol": "class A(asyncio.Protocol):\n    def connection_made(self, transport): ...",
    "one that somebody unknown drops": "@dropped_by('B', 'so')\nclass A:\n    def __init__(self):\n        self.x = threading.Lock()",
    "two that drop each other": "@dropped_by('B', 'so')\nclass A:\n    x = threading.Lock()\n@dropped_by('A', 'so')\nclass B: ...",
}


@pytest.mark.parametrize("source", PLANTED.values(), ids=PLANTED)
def test_a_new_owner_would_be_found(source: str) -> None:
    """Whatever it owns, as long as it does not say what becomes of it."""
    classes = classes_of(source, "x.py")
    assert classes[0].owns
    assert not is_forgotten(classes[0], classes)


def test_one_that_is_registered_is_right() -> None:
    """By itself, by its base, or by its owner."""
    first = "class A:\n    def __init__(self):\n        self.x = threading.Lock()\n        call_after_fork(self.y)\n"
    classes = classes_of(f"{first}class B(A): ...\n@dropped_by('B', 'so')\nclass C:\n    x = threading.Lock()", "x.py")
    assert [is_forgotten(each, classes) for each in classes] == [True, True, True]


def test_one_that_a_module_has_would_be_found() -> None:
    """A lock that is nobody's."""
    assert loose("_LOCK = threading.Lock()\n") == {"threading.Lock"}
