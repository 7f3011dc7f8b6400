"""The balancer of a demo: `sessile balance` as a process of its own, and what it says of the servers.

It is configured by a TOML file in a folder that only this user can read (there is a secret in it) and reads the file
again on SIGHUP. It tells what it does as JSON lines; the events waited for here are among them, so nothing is guessed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from sessile.errors import LabError
from sessile.lab.child import Child, run_module
from sessile.lab.ports import HOST
from sessile.settings import Settings
from sessile.sources import variable
from sessile.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Front", "config_text"]

START_S: Final = 20.0
RELOAD_S: Final = 5.0
GRACE_S: Final = 1.0
"""How long it waits for requests under way when it is told to end."""


def config_text(port: int, routing: str, secret: str, servers: Mapping[str, int], session: Settings) -> str:
    """The balancer's TOML file: `servers` is name → port. Its cookie goes wherever the session's of these settings goes."""
    secure = "auto" if session.secure == "auto" else "always" if session.secure else "never"
    affinity = "cookie" if routing == "sticky" else "none"
    lines = [
        f'listen = "{HOST}:{port}"',
        'algorithm = "round-robin"',
        f'affinity = "{affinity}"',
        f'cookie_name = "affinity-{port}"',
        f'affinity_secure = "{secure}"',
        f'affinity_samesite = "{session.samesite}"',
        f"affinity_partitioned = {str(session.partitioned).lower()}",
        f'secret = "{secret}"',
        f"grace_s = {GRACE_S}",
        "[servers]",
        *(f'{name} = "{HOST}:{server_port}"' for name, server_port in servers.items()),
    ]
    return "\n".join(lines) + "\n"


def session_settings() -> Settings:
    """How the servers' session cookies look: they too are told by the environment, and it is the same."""
    names = [variable(name) for name in ("samesite", "partitioned", "secure")]
    return Settings.load(environ={name: os.environ[name] for name in names if name in os.environ})


class Front:
    """The one balancer of a demo."""

    def __init__(self, port: int, routing: str, secret: str, folder: Path, say: Callable[[str], None]) -> None:
        self.port = port
        self.sees: dict[str, str] = {}
        """What it last said of each server: up, draining or down."""
        self._routing = routing
        self._secret = secret
        self._file = folder / "balancer.toml"
        self._say = say
        self._is_listening = asyncio.Event()
        self._is_reloaded = asyncio.Event()
        self._child: Child | None = None

    async def start(self, servers: Mapping[str, int], parent_pid: int) -> None:
        """Returns once it listens.

        Raises:
            LabError: it ended, or did not listen in time.
        """
        self._write(servers)
        arguments = [str(parent_pid), "balance", "--config", str(self._file), "--json"]
        self._child = await run_module("sessile.lab.lifeline", arguments, on_error=self._say, on_output=self._on_output)
        if not await self._happens(self._is_listening, START_S):
            raise LabError(f"the balancer did not start: {self._last_words()}")

    async def take(self, servers: Mapping[str, int]) -> bool:
        """Have it know these servers; False when it did not say that it does."""
        assert self._child is not None, "started before"
        self._is_reloaded.clear()
        self._write(servers)
        self._child.send(signal.SIGHUP)
        return await self._happens(self._is_reloaded, RELOAD_S)

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop(GRACE_S + 1)

    async def ended(self) -> str:
        """Wait until it has ended; returns how, as a sentence."""
        assert self._child is not None, "started before"
        await self._child.ended()
        return f"the balancer {self._child.how_it_ended()}: {self._last_words()}"

    def status(self) -> dict[str, Any]:
        """What the control API tells of it."""
        child = self._child
        is_alive = child is not None and child.is_alive
        state = "dead" if child is not None and not is_alive else "ready" if self._is_listening.is_set() else "starting"
        return {"pid": child.pid if child is not None and is_alive else None, "port": self.port, "state": state}

    def _last_words(self) -> str:
        words = self._child.last_words() if self._child is not None else ""
        return words or "it said nothing"

    def _write(self, servers: Mapping[str, int]) -> None:
        """Replace the file at once: the balancer must never read half of one."""
        fresh = self._file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(config_text(self.port, self._routing, self._secret, servers, session_settings()))
        fresh.replace(self._file)

    async def _happens(self, event: asyncio.Event, within_s: float) -> bool:
        """Wait for the event, or for the balancer's end."""
        assert self._child is not None, "started before"
        waits = [asyncio.create_task(event.wait()), asyncio.create_task(self._child.ended())]
        try:
            await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(waits)
        return event.is_set()

    def _on_output(self, line: str) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            return
        event = told.get("event")
        if event == "listening":
            self._is_listening.set()
        elif event in {"reloaded", "learned"}:
            self._is_reloaded.set()
        elif event == "server":
            self.sees[told["name"]] = told["state"]
