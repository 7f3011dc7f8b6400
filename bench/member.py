"""One server of a cluster that is looked into: `python -m bench.member`, its plan on the first line of standard input.

It is the demo's server without a supervisor, as any application with `SessionMiddleware` would be, and beside that it can be
filled with sessions and asked what it holds, under `/bench/`. When it has imported everything it says so, and when, on
standard output: how long Python takes to start is not what is measured.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec

from bench import memory
from sessile.lab.lifeline import tie_to_parent
from sessile.lab.replies import Message, Receive, Send, send_json
from sessile.lab.server import ServerPlan
from sessile.record import Record

if TYPE_CHECKING:
    from sessile.engine import Engine
    from sessile.network.cluster import Cluster

PATH: Final = "/bench/"
FILLING: Final = 64
"""So many sessions are made at a time."""
NOTE_CHARACTERS: Final = 100
LOOK_KEYS: Final = 500
"""After so many sessions looked at, others get their turn."""


class Looked:
    """The application, and what can be asked about the server it runs on."""

    def __init__(self, app: Any, engine: Engine, imported: float) -> None:
        self._app = app
        self._engine = engine
        self._imported = imported

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self._app(scope, receive, send)
            return
        asked = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
        answers = {"fill": self._fill, "size": self._size, "contents": self._contents, "digest": self._digest}
        await send_json(send, 200, await answers[scope["path"].removeprefix(PATH)](asked))

    async def _fill(self, asked: dict[str, str]) -> dict[str, Any]:
        """Make so many sessions as requests do, acknowledged by others; cookies of some of them are told."""
        numbers = iter(range(int(asked["count"])))
        sample = int(asked.get("sample", "0"))
        cookies: list[list[str]] = []

        async def make() -> None:
            for number in numbers:
                cookie = await _make_one(self._engine, number)
                if len(cookies) < sample:
                    cookies.append([one.decode().partition(";")[0] for one in cookie])

        began = time.monotonic()
        await asyncio.gather(*(make() for _ in range(FILLING)))
        return {"seconds": time.monotonic() - began, "cookies": cookies}

    async def _size(self, asked: dict[str, str]) -> dict[str, Any]:
        backend = _cluster(self._engine)
        return {
            "sessions": self._engine.table.sessions,
            "tombstones": self._engine.table.tombstones,
            "at": time.monotonic(),
            "imported": self._imported,
            "resident_bytes": memory.resident_bytes(),
            "processor_s": time.process_time(),
            "counts": dict(backend.status()["counts"]) if "status" in asked else {},
        }

    async def _contents(self, asked: dict[str, str]) -> dict[str, Any]:
        """Session → its state, a hash of all that is held of it, and whether this server is to hold it."""
        del asked
        backend = _cluster(self._engine)
        table = self._engine.table
        found = {}
        for number, key in enumerate(table):
            packed = table.get(key)
            if packed is not None:
                found[key.hex()] = [table.state(key), _hash_of(packed), backend.holds(key)]
            if number % LOOK_KEYS == 0:
                await asyncio.sleep(0)
        return found

    async def _digest(self, asked: dict[str, str]) -> dict[str, Any]:
        """All that is held in one number, and how many sessions are held that are this server's to hold."""
        contents = await self._contents(asked)
        joined = sorted(f"{key} {state} {value}" for key, (state, value, _) in contents.items())
        return {
            "digest": blake2b("\n".join(joined).encode(), digest_size=16).hexdigest(),
            "held": sum(is_holder for _, _, is_holder in contents.values()),
            "sessions": len(contents),
        }


async def _make_one(engine: Engine, number: int) -> list[bytes]:
    """One session of a name and a hundred characters; returns the cookies that an answer would carry."""
    session = engine.open((), is_https=False)
    await engine.prepare(session)
    session["user"] = f"user-{number}"
    session["note"] = f"{number:x}".rjust(NOTE_CHARACTERS, "n")
    await engine.settle(engine.commit(session))
    return engine.cookies(session)


def _hash_of(packed: bytes) -> str:
    """The same wherever the same is held of a session: times are each server's own."""
    record = Record.unpack(packed)
    writers = list(record.version)
    fields: list[tuple[object, ...]] = []
    for name in sorted(record.fields):
        entry = record.fields[name]
        for each in entry.assignments():
            additions = sorted((writers[place], counter, total) for place, counter, total in each.additions)
            fields.append((name, each.counter, writers[each.writer], each.value, additions))
    said = repr((record.state, record.subject, sorted(record.version.items()), record.heads, fields))
    return blake2b(said.encode(), digest_size=8).hexdigest()


def _cluster(engine: Engine) -> Cluster:
    from sessile.network.cluster import Cluster as Backend

    assert isinstance(engine.backend, Backend), "only servers of clusters are looked into"
    return engine.backend


def serve(plan: ServerPlan) -> None:
    """Serve until SIGTERM or SIGINT."""
    import uvicorn  # the plan is read, and the parent watched, before imports that take a while

    from sessile.asgi import SessionMiddleware
    from sessile.lab.app import About, DemoApp

    app = DemoApp(About(plan.name, plan.strategy, plan.routing, plan.dashboard, str(plan.parent_pid)))
    sessions = SessionMiddleware(app, url=plan.url, secret=plan.secret, cookie_name=plan.cookie_name)
    _cluster(sessions.engine)
    imported = time.monotonic()
    print(f"imported {imported}", flush=True)
    config = uvicorn.Config(
        Looked(sessions, sessions.engine, imported),
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
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=ServerPlan)
    tie_to_parent(plan.parent_pid)
    serve(plan)
    return 0


if __name__ == "__main__":
    sys.exit(main())
