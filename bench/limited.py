"""Servers whose sessions may be as large as settings allow, each a process at a port of its own.

Run as a module it is one server: `python -m bench.limited`, its plan on the first line of standard input. An ordinary
application with `SessionMiddleware`, whose handlers fill sessions up to their limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec

from bench import memory
from bench.browser import HOST, Browser
from bench.members import node_ports
from bench.show import CannotShow
from sessile.errors import SessionTooLarge
from sessile.lab.child import Child
from sessile.lab.lifeline import tie_to_parent
from sessile.lab.replies import Message, Receive, Send, send_json
from sessile.record import Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessile.engine import Engine
    from sessile.session import Session

__all__ = ["LIMITS", "Limited", "limited"]

ROOT: Final = Path(__file__).resolve().parent.parent
LIMITS: Final = "session_bytes_max=2MiB&value_bytes_max=1MiB&fields_max=4096&tombstone_keep=13s"
"""The highest values that settings take. Tombstones leave soon, so that one that stayed would be seen."""
START_S: Final = 60.0
LOOK_AGAIN_S: Final = 0.05
NAME_BYTES: Final = 255


class Plan(msgspec.Struct, frozen=True):
    """The plan of one server."""

    descriptor: int
    parent_pid: int
    url: str
    secret: str


# -- one server ----------------------------------------------------------------------------------------------------------


class LimitedApp:
    """The application: its paths fill a browser's session, change it, or end it."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        del receive  # no question here has a body
        if scope["type"] != "http":
            return
        engine: Engine = scope["sessile.engine"]
        asked = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
        session: Session = scope["session"]
        match scope["path"]:
            case "/read":
                told: dict[str, Any] = {"n": session.get("n", 0)}
            case "/count":
                told = {"n": session.increment("n")}
            case "/size":
                told = {"fields": len(session)}
            case "/fill":
                told = _fill(session, asked)
            case "/slow":
                session.get("n")
                await asyncio.sleep(float(asked["seconds"]))
                session["slow"] = session.get("slow", 0) + 1
                told = {}
            case "/end":
                session.logout()
                told = {}
            case "/tag":  # as if another process had come in this one's place
                engine.draw_writer()
                told = {"n": session.increment("n")}
            case "/look":
                told = _look(engine)
            case _:
                told = {}
        await send_json(send, 200, told | {"key": session.key if session.accessed else ""})


def _fill(session: Session, asked: dict[str, str]) -> dict[str, Any]:
    """Set `count` fields, or fewer if one is refused."""
    size, count, start = int(asked.get("bytes", 1)), int(asked.get("count", 1)), asked.get("start", "f")
    value = os.urandom(size)
    filled = 0
    with contextlib.suppress(SessionTooLarge):
        for number in range(count):
            name = f"{start}{number:05}"
            if "long" in asked:
                name += "é" * ((NAME_BYTES - len(name.encode())) // 2)
            session[name] = value
            filled += 1
    return {"filled": filled, "fields": len(session)}


def _look(engine: Engine) -> dict[str, Any]:
    """What this server holds, and how its links are."""
    records = [Record.unpack(packed) for packed in map(engine.table.get, engine.table) if packed is not None]
    backend = engine.backend
    assert backend is not None, "sessions are shared here"
    return {
        "stats": engine.stats(),
        "status": backend.status(),
        "sessions": engine.table.sessions,
        "bytes": engine.table.held_bytes,
        "writers": max((len(record.version) for record in records), default=0),
        "fields": max((len(record.fields) for record in records), default=0),
        "largest": max((len(record.pack()) for record in records), default=0),
        "resident_bytes": memory.resident_bytes(),
    }


def serve(plan: Plan) -> None:
    """Serve until SIGTERM or SIGINT."""
    import uvicorn  # the plan is read, and the parent watched, before imports that take a while

    from sessile.asgi import SessionMiddleware

    app = SessionMiddleware(LimitedApp(), url=plan.url, secret=plan.secret)
    config = uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=plan.descriptor)])


def main() -> int:
    """Read the plan, and serve."""
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    tie_to_parent(plan.parent_pid)
    serve(plan)
    return 0


# -- all of them ---------------------------------------------------------------------------------------------------------


class Limited:
    """Servers that share sessions.

    Args:
        url: their strategy; of a cluster, without its members.
        count: how many.
    """

    def __init__(self, url: str, count: int) -> None:
        self._secret = secrets.token_urlsafe(32)
        self._nodes = [f"{HOST}:{port}" for port in node_ports(count)] if url.endswith("://") else []
        self._url = url
        self.said: list[str] = []
        """What they logged."""
        self._children: list[Child] = []
        self.ports: list[int] = []
        """Where browsers reach each."""

    async def start(self, number: int) -> None:
        """Start one of them; it answers when this returns."""
        listener = socket.socket()
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        where = f"members={','.join(self._nodes)}&me={self._nodes[number]}&" if self._nodes else ""
        plan = Plan(listener.fileno(), os.getpid(), f"{self._url}?{where}{LIMITS}", self._secret)
        with listener:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.limited"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(listener.fileno(),),
                start_new_session=True,
                cwd=ROOT,
            )
            child = Child(process, self.said.append, None)
            self._children.append(child)
            assert process.stdin is not None, "asked for above"
            process.stdin.write(msgspec.json.encode(plan) + b"\n")
            await process.stdin.drain()
        self.ports.append(port)
        async with asyncio.timeout(START_S):
            while (await self.ask(port, "/"))[0] != 200:
                if not child.is_alive:
                    raise CannotShow(f"a server did not start: {child.last_words() or child.how_it_ended()}")
                await asyncio.sleep(LOOK_AGAIN_S)

    @staticmethod
    async def ask(port: int, path: str) -> tuple[int, Any]:
        """Ask without a session."""
        browser = Browser(port)
        answer = await browser.ask("GET", path)
        browser.close()
        return answer

    async def look(self) -> list[dict[str, Any]]:
        """What each server holds, and how its links are."""
        found = []
        for port in self.ports:
            status, told = await self.ask(port, "/look")
            if status != 200:
                raise CannotShow(f"a server answered /look with {status}: {self.said[-3:]}")
            found.append(told)
        return found

    async def until_linked(self) -> None:
        """Wait until every server is linked to all others, or has its store."""
        async with asyncio.timeout(START_S):
            while not all(_is_linked(each["status"], len(self.ports)) for each in await self.look()):  # noqa: ASYNC110  # as ever
                await asyncio.sleep(LOOK_AGAIN_S)

    async def stop(self) -> None:
        """End every process at once."""
        await asyncio.gather(*(child.kill() for child in self._children))


def _is_linked(status: dict[str, Any], servers: int) -> bool:
    return bool(status["linked"] == servers - 1 if "linked" in status else status["channel"] == "up")


@contextlib.asynccontextmanager
async def limited(url: str, count: int) -> AsyncIterator[Limited]:
    """`count` servers that know each other, or share a store; they are ended when the context is left."""
    servers = Limited(url, count)
    try:
        for number in range(count):
            await servers.start(number)
        await servers.until_linked()
        yield servers
    finally:
        await servers.stop()


if __name__ == "__main__":
    sys.exit(main())
