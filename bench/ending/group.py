"""Servers that share sessions, by any strategy, each in a process of its own.

Every server has a port of its own, without a balancer. It can be stopped (SIGSTOP) and continued, killed, ended in good order, and
started again at the same port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bench.browser import HOST, Browser
from bench.ending.server import Plan
from bench.members import node_ports
from bench.show import CannotShow
from sessile.lab.child import Child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

__all__ = ["CLUSTERS", "Group", "Host", "group", "within"]

ROOT: Final = Path(__file__).resolve().parent.parent.parent
CLUSTERS: Final = ("all-to-all", "primary-backup")
START_S: Final = 60.0
WHOLE_S: Final = 40.0
LOOK_AGAIN_S: Final = 0.05


@dataclass
class Host:
    """One server."""

    name: str
    port: int
    """Where browsers reach it."""
    listener: socket.socket
    """Kept here, so that the server can be started again at the same port."""
    settings: dict[str, str] = field(default_factory=dict)
    namespace: str = ""
    child: Child | None = None
    pid: int = 0
    """Of the process that answers: a worker, where the server has one."""

    async def ask(self, path: str) -> dict[str, Any]:
        """Send a command under `/bench/`; returns an empty answer if the server does not answer."""
        browser = Browser(self.port)
        status, told = await browser.ask("POST", f"/bench/{path}")
        browser.close()
        return told if status == 200 and isinstance(told, dict) else {}

    def pause(self) -> None:
        """Stop it as it is; its sockets stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """Kill it (SIGKILL)."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                if self.pid:
                    os.kill(self.pid, signal.SIGKILL)
            await self.child.kill()

    async def end(self) -> None:
        """End it in good order."""
        assert self.child is not None, "only what was started is ended"
        self.child.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.child.ended(), START_S)
        except TimeoutError:
            raise CannotShow(f"server {self.name} does not end on SIGTERM: {self.child.last_words()}") from None

    def last_words(self) -> str:
        return "" if self.child is None else self.child.last_words() or self.child.how_it_ended()


class Group:
    """The servers of one strategy.

    Args:
        url: theirs; of a cluster only the scheme counts.
        kind: what serves them: one of `server.KINDS`.
        settings: of all of them, by name.
    """

    def __init__(self, url: str, kind: str, settings: Mapping[str, str]) -> None:
        self.url = url
        self.kind = kind
        self.settings = {"secret": secrets.token_urlsafe(32), **settings}
        self.hosts: list[Host] = []
        self.addresses: list[str] = []
        """Of the nodes, in a cluster."""

    @property
    def is_cluster(self) -> bool:
        return self.scheme in CLUSTERS

    @property
    def scheme(self) -> str:
        return self.url.partition(":")[0]

    @property
    def is_alone(self) -> bool:
        return self.url.startswith("sticky")

    async def run(self, host: Host) -> None:
        """Start a server; returns before it answers."""
        prefix = ("ip", "netns", "exec", host.namespace) if host.namespace else ()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SESSILE_")}
        process = await asyncio.create_subprocess_exec(
            *(*prefix, sys.executable, "-m", "bench.ending.server"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(host.listener.fileno(),),
            start_new_session=True,
            cwd=ROOT,
            env=environment,
        )
        host.pid = 0
        host.child = Child(process, lambda _: None, None)
        settings = {**self.settings, **self._where(host), **host.settings}
        plan = Plan(host.name, self.kind, host.listener.fileno(), os.getpid(), settings)
        assert process.stdin is not None, "asked for above"
        with contextlib.suppress(ConnectionError):  # it ended already; `until_ready` reports that
            process.stdin.write(msgspec.json.encode(plan) + b"\n")
            await process.stdin.drain()

    def _where(self, host: Host) -> dict[str, str]:
        if not self.is_cluster:
            return {"url": self.url}
        return {
            "url": f"{self.scheme}://",
            "members": ",".join(self.addresses),
            "me": self.addresses[self.hosts.index(host)],
        }

    async def until_ready(self, hosts: Sequence[Host] = ()) -> None:
        """Wait until these servers, or all, answer and are linked or have their store. Raises CannotShow otherwise."""
        hosts = hosts or self.hosts
        await asyncio.gather(*(within(START_S, lambda host=host: self._is_begun(host)) for host in hosts))  # type: ignore[misc]
        for host in hosts:
            if not await within(START_S, lambda host=host: self._is_ready(host)):  # type: ignore[misc]
                raise CannotShow(f"server {host.name} on {self.scheme}:// is not ready: {host.last_words()}")

    async def _is_begun(self, host: Host) -> bool:
        """Whether it answers; the first request starts what a server without lifespan needs."""
        if host.child is None or not host.child.is_alive:
            raise CannotShow(f"server {host.name} on {self.scheme}:// did not start: {host.last_words()}")
        browser = Browser(host.port)
        status, _ = await browser.ask("GET", "/look")
        browser.close()
        return status > 0

    async def _is_ready(self, host: Host) -> bool:
        told = await host.ask("state")
        if not told:
            return False
        host.pid = told["pid"]
        backend = told["backend"]
        if self.is_alone:
            return True
        if self.is_cluster:
            return list(backend["members"].values()) == ["alive"] * (len(self.hosts) - 1)
        has_channel = backend["channel"] == "up" or not self.url.startswith("redis")
        return bool(backend["state"] == "ready" and has_channel and not backend["queued"] + backend["pushes"])

    async def stop(self) -> None:
        """End every process at once."""
        await asyncio.gather(*(host.kill() for host in self.hosts))
        for host in self.hosts:
            host.listener.close()


async def within(seconds: float, condition: Callable[[], Any]) -> bool:
    """Wait until the condition is true; returns False if it is not in time."""
    deadline_s = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(LOOK_AGAIN_S)
    return True


@contextlib.asynccontextmanager
async def group(
    url: str,
    count: int,
    *,
    kind: str = "asyncio",
    settings: Mapping[str, str],
    own: Mapping[int, Mapping[str, str]] | None = None,
    namespaces: Sequence[str] = (),
    addresses: Sequence[str] = (),
) -> AsyncIterator[Group]:
    """This many servers that answer and know each other; they are ended when the context is left.

    Args:
        url: theirs.
        count: how many; one where the strategy is sticky.
        kind: what serves them.
        settings: of all of them.
        own: of single ones, by their place.
        namespaces: the network namespaces in which they run.
        addresses: where their nodes are, in a cluster.
    """
    made = Group(url, kind, settings)
    made.addresses = list(addresses) or [f"{HOST}:{port}" for port in node_ports(count)]
    try:
        for place in range(1 if made.is_alone else count):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, 0))
            listener.set_inheritable(True)
            host = Host(f"s{place + 1}", listener.getsockname()[1], listener, dict((own or {}).get(place, {})))
            host.namespace = namespaces[place] if namespaces else ""
            made.hosts.append(host)
        await asyncio.gather(*(made.run(host) for host in made.hosts))
        await made.until_ready()
        yield made
    finally:
        await made.stop()
