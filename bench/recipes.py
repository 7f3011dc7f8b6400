"""The README's app on real servers behind a balancer that is configured as the documentation shows, and users who shop there.

A recipe is the file in `docs/recipes`. Only what everybody changes is changed: the addresses of the servers, the port, and the
folders that nginx writes to. Servers are uvicorn processes, started by the command of `docs/RECIPES.md` as members of one
`primary-backup` cluster.

Every user has one request under way at a time and never sends one twice. Each POST puts an item of its own into the cart and
counts one visit, so that answers tell what was executed: an item that was acknowledged and is missing was lost, and more visits
than items means that a POST was executed twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bench.browser import HOST, Browser
from bench.catalogue import find_program
from bench.members import node_ports
from bench.show import CannotShow
from sessile.lab.child import Child, run_module

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["AFFINITY", "BALANCERS", "Asked", "Server", "Shopper", "Site", "at_work", "placed", "recipe", "site"]

ROOT: Final = Path(__file__).resolve().parent.parent
RECIPES: Final = ROOT / "docs" / "recipes"
BALANCERS: Final = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}
AFFINITY: Final = {"nginx": b"srv", "haproxy": b"SRV"}
"""Balancer → the cookie by which it knows a user's server."""
NAMED: Final = ("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
"""The servers' addresses in the recipes."""
LISTENS: Final = {"nginx": ("listen 80;", "listen {};"), "haproxy": ("bind :80\n", "bind {}\n")}
START_S: Final = 40.0
STOP_S: Final = 30.0
LOOK_AGAIN_S: Final = 0.05
PAUSE_S: Final = 0.15
"""What a user does with an answer takes so long on average, and at most twice as long."""


def recipe(balancer: str) -> str:
    """The file as it is documented."""
    return (RECIPES / BALANCERS[balancer]).read_text()


def placed(balancer: str, port: int, servers: Sequence[int], folder: Path) -> str:
    """The recipe for these servers on loopback, its own port, and a folder to write to.

    Raises:
        CannotShow: something that is to be changed is not in it.
    """
    old_listen, new_listen = LISTENS[balancer]
    changes = [(old_listen, new_listen.format(f"{HOST}:{port}"))]
    for named, server in zip(NAMED, servers, strict=True):
        changes.append((named, f"{HOST}:{server}"))
        if balancer == "nginx":
            changes.append((named.replace(".", "\\."), f"{HOST}:{server}".replace(".", "\\.")))
    if balancer == "nginx":
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        changes += [
            ("/var/log/nginx/", f"{folder}/"),
            ("\nhttp {\n", "\nhttp {\n" + "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)),
        ]
    text = recipe(balancer)
    for old, new in changes:
        if old not in text:
            raise CannotShow(f"{BALANCERS[balancer]} has no {old.strip()!r} to be changed")
        text = text.replace(old, new)
    return text


def written(balancer: str, port: int, servers: Sequence[int], folder: Path) -> Path:
    """The recipe for these servers as a file in the folder, to which the balancer may write whoever it runs as."""
    folder.chmod(0o777)
    file = folder / BALANCERS[balancer]
    file.write_text(placed(balancer, port, servers, folder))
    return file


def command(balancer: str, file: Path) -> list[str]:
    """How the program is started in the foreground."""
    if balancer == "nginx":
        return [
            *(find_program("nginx"), "-p", str(file.parent), "-c", str(file), "-e", "stderr"),
            *("-g", f"daemon off; pid {file.parent}/nginx.pid;"),
        ]
    return [find_program("haproxy"), "-db", "-f", str(file)]


async def start(arguments: Sequence[str], said: list[str]) -> Child:
    """Start a program that does not outlive this process; what it says on standard error is added to the list."""
    tied = (str(os.getpid()), "exec", *arguments)
    return await run_module("sessile.lab.lifeline", tied, on_error=said.append)


async def answers(port: int, status: int) -> bool:
    """Whether `/healthz` is answered with this status."""
    browser = Browser(port)
    told, _ = await browser.ask("GET", "/healthz")
    browser.close()
    return told == status


class Server:
    """One server of the service.

    Args:
        port: its app's.
        node: its member's port.
        nodes: those of all members.
        secret: the cluster's.
    """

    def __init__(self, port: int, node: int, nodes: Sequence[int], secret: str) -> None:
        self.port = port
        self.said: list[str] = []
        """Its log, of all its processes."""
        self._child: Child | None = None
        members = ",".join(f"{HOST}:{each}" for each in nodes)
        variables = {
            "SESSILE_SECRET": secret,
            "SESSILE_URL": f"primary-backup://?members={members}",
            "SESSILE_ME": f"{HOST}:{node}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])),
        }
        serve = ["-m", "uvicorn", "--app-dir", str(ROOT / "examples"), "fastapi_app:app", "--host", HOST]
        options = ["--port", str(port), "--lifespan", "on", "--timeout-keep-alive", "75", "--log-level", "warning"]
        settings = [f"{name}={value}" for name, value in variables.items()]
        self._command = [find_program("env"), *settings, sys.executable, *serve, *options]

    async def start(self) -> None:
        """Start it; returns once `/healthz` says that it is ready."""
        self._child = child = await start(self._command, self.said)
        deadline = time.monotonic() + START_S
        while not await answers(self.port, 200):
            if not child.is_alive or time.monotonic() > deadline:
                raise CannotShow(f"a server did not start: {child.last_words() or child.how_it_ended()}")
            await asyncio.sleep(LOOK_AGAIN_S)

    async def restart(self) -> bool:
        """As a deployment does: SIGTERM, wait for its end, start it anew. Returns whether it ended by itself."""
        child = self._running()
        child.send(signal.SIGTERM)
        is_in_order = True
        try:
            await asyncio.wait_for(child.ended(), STOP_S)
        except TimeoutError:
            is_in_order = False
            await child.kill()
        await self.start()
        return is_in_order

    async def kill(self) -> None:
        """SIGKILL."""
        await self._running().kill()

    async def end(self) -> None:
        """End it, if it runs."""
        if self._child is not None:
            await self._child.kill()

    def _running(self) -> Child:
        assert self._child is not None, "it was started"
        return self._child


@dataclass(frozen=True, slots=True)
class Site:
    """The service: where users reach it, and its servers."""

    port: int
    servers: list[Server]


@contextlib.asynccontextmanager
async def site(balancer: str) -> AsyncIterator[Site]:
    """The README's app on three servers behind this balancer; all of it has ended when this is left."""
    port, *ports = node_ports(1 + 2 * len(NAMED))
    apps, nodes = ports[: len(NAMED)], ports[len(NAMED) :]
    secret = secrets.token_urlsafe(32)
    servers = [Server(app, node, nodes, secret) for app, node in zip(apps, nodes, strict=True)]
    with tempfile.TemporaryDirectory(prefix="sessile-recipes-") as name:
        file = written(balancer, port, apps, Path(name))
        front = await start(command(balancer, file), [])
        try:
            await asyncio.gather(*(server.start() for server in servers))
            deadline = time.monotonic() + START_S
            while not await answers(port, 200):
                if not front.is_alive or time.monotonic() > deadline:
                    raise CannotShow(f"{balancer} did not start: {front.last_words() or front.how_it_ended()}")
                await asyncio.sleep(LOOK_AGAIN_S)
            yield Site(port, servers)
        finally:
            await asyncio.gather(front.stop(STOP_S), *(server.end() for server in servers))


class Asked(NamedTuple):
    """One request, as its user saw it."""

    method: str
    status: int
    """0 where the connection broke."""
    seconds: float
    was_answered: bool = True
    """Whether at least the head of an answer came."""

    @property
    def is_good(self) -> bool:
        return self.status == 200


@dataclass(slots=True)
class Shopper:
    """One user, and what became of their session."""

    name: str
    browser: Browser
    rng: Random
    sent: set[str] = field(default_factory=set)
    bought: set[str] = field(default_factory=set)
    """The items whose POST was acknowledged."""
    asked: list[Asked] = field(default_factory=list)
    visits_more: int = 0
    """By so much the session's visits exceed the items in its cart."""
    sessions_lost: int = 0
    changes_lost: int = 0
    executed_twice: int = 0
    wrongs: list[str] = field(default_factory=list)
    """What was wrong, in words."""

    async def step(self) -> None:
        """Put something into the cart, or look into it."""
        if not self.sent or self.rng.random() < 0.5:
            item = f"{self.name}-{len(self.sent)}"
            self.sent.add(item)
            if await self._ask("POST", f"/cart?item={item}"):
                self.bought.add(item)
        else:
            await self.look()

    async def look(self) -> None:
        """Look into the cart."""
        await self._ask("GET", "/cart")

    async def _ask(self, method: str, path: str) -> bool:
        began_s = time.monotonic()
        status, told = await self.browser.ask(method, path)
        self.asked.append(Asked(method, status, time.monotonic() - began_s, self.browser.was_answered))
        if status == 200:
            self.judge(told)
        return status == 200

    def judge(self, told: dict[str, Any]) -> None:
        """An answer says how things are."""
        cart, visits = set(told["cart"]), int(told["visits"])
        missing = self.bought - cart
        if missing and missing == self.bought:
            self.sessions_lost += 1
            self._note(f"its session was lost, which held {len(missing)} items")
        elif missing:
            self.changes_lost += len(missing)
            self._note(f"lost {sorted(missing)}")
        if foreign := cart - self.sent:
            self.sessions_lost += 1
            self._note(f"is shown what others bought: {sorted(foreign)}")
        more = visits - len(cart)
        if more > self.visits_more:
            self.executed_twice += more - self.visits_more
            self._note(f"{visits} visits, and {len(cart)} items")
        elif more < self.visits_more:
            self.changes_lost += self.visits_more - more
            self._note(f"{visits} visits, and {len(cart)} items; {self.visits_more} more before")
        self.visits_more = more
        self.bought &= cart

    def _note(self, wrong: str) -> None:
        last = ", ".join(f"{one.method} {one.status}" for one in self.asked[-4:])
        self.wrongs.append(f"{self.name}: {wrong} (after {last})")


@contextlib.asynccontextmanager
async def at_work(port: int, count: int) -> AsyncIterator[list[Shopper]]:
    """So many users who shop from here on; nothing of theirs is under way in the end, and all have looked once more."""
    users = [Shopper(f"u{number}", Browser(port), Random(number)) for number in range(count)]
    is_over = asyncio.Event()

    async def work(user: Shopper) -> None:
        while not is_over.is_set():
            await user.step()
            await asyncio.sleep(user.rng.uniform(0, 2 * PAUSE_S))

    await asyncio.gather(*(user.step() for user in users))
    working = [asyncio.create_task(work(user)) for user in users]
    try:
        yield users
        is_over.set()
        await asyncio.gather(*working)
        await asyncio.gather(*(user.look() for user in users))
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        for user in users:
            user.browser.close()
        await asyncio.sleep(0)
