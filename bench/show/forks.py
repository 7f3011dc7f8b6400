"""`forks`: processes fork while they serve, on every strategy and store, and each user is shown their own session only.

They fork in three ways: gunicorn with `--preload`, uWSGI without `lazy-apps`, and `multiprocessing` in a process that serves. Each
run is one fork and some dozens of requests; during the last two thirds of these, parent and child serve at the same time. The
parent has open connections when it forks, and goes on using them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from bench import environments
from bench.forks import servers
from bench.forks.servers import SERVERS, play_server
from bench.forks.users import FAILED, REFUSED, RIGHT, UNKNOWN, WRONG
from bench.races.ours import OURS
from bench.redis_server import free_port, redis_server
from bench.show import CannotShow, Figure, Progress, Shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

SUMMARY = "A process that serves is forked, by gunicorn, uWSGI and multiprocessing: 0 users see another's session, 0 requests fail."
PROGRAMS = ("redis-server",)

RUNS: Final = 50
PEER_RUNS: Final = 10
WITHIN_S: Final = 600.0
STORE_S: Final = 10.0
LOOPS: Final = ("threads", "asyncio", "uvloop")
"""How a process serves that forks by `multiprocessing`; a third of the runs each."""
MULTIPROCESSING: Final = "multiprocessing"
KINDS: Final = (*SERVERS, MULTIPROCESSING)
CLUSTERS: Final = ("all-to-all", "primary-backup")
_STORES: Final = {each.name: each.where for each in OURS}
STRATEGIES: Final = ("sticky", *CLUSTERS, "Redis", "Redis, cache=checked", "SQLite", "PostgreSQL")
PEERS: Final = {
    "starsessions 2.2.1, Redis": ("starsessions", "starsessions"),
    "Flask-Session 0.8.0, Redis": ("flask-session", "flask"),
}
"""Label -> its name in `bench.forks.peer`, and its environment."""
NOTES: Final = [
    "each run is a fork; parent and child go on serving known users, and each answer must show the session of the user who asked",
    "multiprocessing: a third of the runs each under threads (WSGI), asyncio and uvloop (ASGI)",
    "children of children, forks in a thread, and children that serve no request are among them",
    "sticky: a session lives in one process; a process that has never seen it says so (unknown here), which is no failure",
    "clusters: a child of a member is not a member, and its log names --workers 1; its parent and the link go on;",
    "gunicorn and uWSGI with several workers do not start there (`make show NAME=mistakes`)",
    "uWSGI by default forks in C while threads of Python run: a worker may start with a lock that is never released,",
    "whatever the application (py-call-uwsgi-fork-hooks or lazy-apps prevent that): failures there are shown, and not judged",
]


def is_possible(kind: str, strategy: str) -> bool:
    """Whether such a process starts at all: a server with several workers refuses to be the member of a cluster."""
    return kind == MULTIPROCESSING or strategy not in CLUSTERS


def where(strategy: str) -> AbstractContextManager[str]:
    """What a strategy or store needs, and its URL."""
    if strategy in CLUSTERS:
        members = ",".join(f"127.0.0.1:{free_port()}" for _ in range(2))
        return nullcontext(f"{strategy}://?members={members}")
    return _STORES[strategy]()


def settled(url: str, strategy: str) -> str:
    """The URL with this show's settings: fifty processes that connect at once may keep a store busy for a second."""
    if strategy == "sticky" or strategy in CLUSTERS:
        return url
    more = f"store_timeout={STORE_S:g}s" + ("&cache=checked" if strategy.endswith("cache=checked") else "")
    return f"{url}{'&' if '?' in url else '?'}{more}"


def play(kind: str, strategy: str, runs: int) -> dict[str, Any]:
    """Run one kind this often; returns what its process reports."""
    with where(strategy) as given:
        url = settled(given, strategy)
        if kind != MULTIPROCESSING:
            return play_server(kind, url, runs)
        total: dict[str, Any] = {"found": Counter(), "why": [], "runs": 0, "disturbed": []}
        for number, loop in enumerate(LOOPS):
            share = runs // len(LOOPS) + (number < runs % len(LOOPS))
            told = played([sys.executable, "-m", "bench.forks.process", loop, url, str(share)])
            total["found"].update(told["found"])
            for name in ("why", "runs", "disturbed"):
                total[name] += told[name]
        return total


def played(command: list[str]) -> dict[str, Any]:
    """Run a command and return what it reports. Raises CannotShow with the reason if it fails."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."]), "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            command, cwd=environments.ROOT, env=variables, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotShow(f"it did not end within {WITHIN_S:g} s") from None
    last = done.stdout.strip().splitlines()[-1:]
    if done.returncode or not last:
        raise CannotShow(f"it ended with status {done.returncode}: {' '.join(done.stderr.strip().splitlines()[-1:])}")
    told: dict[str, Any] = json.loads(last[0])
    return told


def judge(kind: str, strategy: str, told: Mapping[str, Any], runs: int) -> list[Figure]:
    """No user was shown another's session, no request failed, no link was disturbed, and no run is missing."""
    found, label = told["found"], f"{strategy}, {kind}"
    wrong, failed = found.get(WRONG, 0), found.get(FAILED, 0)
    refused = found.get(REFUSED, 0) if strategy not in CLUSTERS else 0
    is_whole = told["runs"] >= runs and found.get(RIGHT, 0) + found.get(REFUSED, 0) > 0
    figures = [Figure(f"{label}: wrong users", wrong, "", "= 0", wrong == 0 and is_whole)]
    if kind == servers.WITHOUT_PARENT:
        return [*figures, Figure(f"{label}: requests that failed", failed + refused)]
    bad = failed + refused + len(told["disturbed"])
    return [*figures, Figure(f"{label}: requests that failed, links disturbed", bad, "", "= 0", not bad)]


def row(label: str, told: Mapping[str, Any]) -> str:
    """All findings, as a line."""
    found = told["found"]
    counted = ", ".join(f"{found[name]} {name}" for name in (RIGHT, UNKNOWN, REFUSED, FAILED, WRONG) if found.get(name))
    more = "; ".join([*told["disturbed"][:2], *told["why"][:1]])
    return f"{label}: {told['runs']} forks; {counted}{'; ' + more if more else ''}"


def play_peer(name: str, environment: str, runs: int) -> dict[str, Any]:
    """Run a peer in its own environment, on a Redis of its own."""
    python = environments.python_of(environment)
    with redis_server() as port:
        return played([str(python), "-m", "bench.forks.peer", name, str(port), str(runs)])


def run(progress: Progress) -> Shown:
    """Run every strategy and store in every way, and the peers under multiprocessing."""
    figures: list[Figure] = []
    rows: list[str] = []
    for strategy in STRATEGIES:
        for kind in KINDS:
            if not is_possible(kind, strategy):
                continue
            label = f"{strategy}, {kind}"
            progress(label)
            try:
                told = play(kind, strategy, RUNS)
            except CannotShow as reason:
                rows.append(f"{label}: NOT RUN: {reason}")
                continue
            figures += judge(kind, strategy, told, RUNS)
            rows.append(row(label, told))
    for label, (name, environment) in PEERS.items():
        progress(label)
        try:
            told = play_peer(name, environment, PEER_RUNS)
        except CannotShow as reason:
            rows.append(f"{label}: NOT RUN: {reason}")
            continue
        visits = sum(told["found"].values())
        figures.append(
            Figure(f"{label}: wrong users, of {visits} visits in {told['runs']} forks", told["found"].get(WRONG, 0))
        )
        figures.append(Figure(f"{label}: requests that failed", told["found"].get(FAILED, 0)))
        rows.append(row(f"{label}, {MULTIPROCESSING}", told))
    return Shown("forks", figures, [*NOTES, *rows])
