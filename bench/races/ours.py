"""Sessile's servers for the plays: three engines behind the ASGI middleware, on real sockets or a real store."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.races.hazards import GRACE_S
from bench.races.requests import AsgiServer, Loop, Site, arrive_async, given_by, told
from bench.redis_server import free_port, redis_server
from bench.show import CannotShow
from sessile.asgi import SessionMiddleware
from sessile.engine import Engine
from sessile.stores.sql_schema import schema_sql
from tests.conftest import SEARCHED
from tests.stores.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["OURS", "Ours", "site_of"]

SERVERS: Final = 3
SECRET: Final = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"
WHOLE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Ours:
    """One strategy or store, with these settings; `where` starts what it needs and gives its URL."""

    name: str
    where: Callable[[], contextlib.AbstractContextManager[str]]
    servers: int = SERVERS
    settings: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def _redis() -> Iterator[str]:
    with redis_server() as port:
        yield f"redis://127.0.0.1:{port}"


@contextlib.contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="sessile-races-") as folder:
        yield f"sqlite:///{folder}/sessions.db"


@contextlib.contextmanager
def _postgres() -> Iterator[str]:
    if shutil.which("postgres", path=SEARCHED) is None:
        raise CannotShow("postgres is not installed; try: sh scripts/apt.sh postgres")
    with tempfile.TemporaryDirectory(prefix="sessile-races-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder) / "server", max_connections="400")
        server.start()
        try:
            server.query(schema_sql("postgresql://"))
            yield server.url()
        finally:
            server.stop()


OURS: Final = (
    Ours("sticky", lambda: contextlib.nullcontext("sticky://"), servers=1),
    Ours("all-to-all", lambda: contextlib.nullcontext("all-to-all://")),
    Ours("primary-backup", lambda: contextlib.nullcontext("primary-backup://")),
    Ours("Redis", _redis),
    Ours("Redis, cache=checked", _redis, settings={"cache": "checked"}),
    Ours("Redis, cache=off", _redis, settings={"cache": "off"}),
    Ours("SQLite", _sqlite),
    Ours("PostgreSQL", _postgres),
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The handlers of every contender, on a session of ours."""
    del receive
    path, given = scope["path"], given_by(scope["query_string"].decode())
    body = "{}"
    if path != "/plain":
        session = scope["session"]
        dict(session)
        await arrive_async(given)
        if path == "/set":
            session[given["name"]] = given["value"]
        elif path == "/rotate":
            session.login("ann")
            session["user"] = "ann"
        elif path == "/logout":
            session.logout()
        body = told(session)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})


def _engines(ours: Ours, url: str) -> list[Engine]:
    settings: dict[str, Any] = {"secret": SECRET, "rotation_grace": GRACE_S, "sweeps": False, **ours.settings}
    if url.startswith(("all-to-all", "primary-backup")):
        members = [f"127.0.0.1:{free_port()}" for _ in range(ours.servers)]
        return [Engine(url=url, me=me, members=members, tls="off", **settings) for me in members]
    return [Engine(url=url, **settings) for _ in range(ours.servers)]


def _is_whole(engine: Engine, servers: int) -> bool:
    assert engine.backend is not None, "only those with others are asked"
    status = engine.backend.status()
    if "members" in status:
        return list(status["members"].values()) == ["alive"] * (servers - 1)
    return bool(status["state"] == "ready")


@contextlib.contextmanager
def site_of(ours: Ours) -> Iterator[Site]:
    """The servers, started and linked; stopped when this is left."""
    loop = Loop()
    with contextlib.ExitStack() as stack:
        stack.callback(loop.close)
        engines = _engines(ours, stack.enter_context(ours.where()))
        having = [engine for engine in engines if engine.backend is not None]

        async def each(verb: str) -> None:
            await asyncio.gather(*(getattr(engine.backend, verb)() for engine in having))

        stack.callback(lambda: loop.run(each("stop")))
        loop.run(each("start"))
        deadline = time.monotonic() + WHOLE_S
        while not all(_is_whole(engine, ours.servers) for engine in having):
            if time.monotonic() > deadline:
                raise CannotShow(f"{ours.name}: the servers are not ready within {WHOLE_S:g} s")
            time.sleep(0.02)
        servers = [AsgiServer(SessionMiddleware(app, engine=engine), loop) for engine in engines]
        yield Site(list(servers), lambda: sum(engine.table.sessions for engine in engines))
