"""One peer: `python -m bench.races.peer NAME REDIS_PORT`, in that peer's environment. Says what went wrong, as JSON."""

from __future__ import annotations

import importlib
import json
import socket
import sys
from typing import Any

from bench.races.hazards import play_all
from bench.races.requests import AsgiServer, Loop, Server, Site, WsgiServer

PEERS = {
    "starsessions": ("asgi", "starsessions_app", ""),
    "flask-session": ("wsgi", "flask_session_app", ""),
    "django-cache": ("wsgi", "django_app", "cache"),
    "django-db": ("wsgi", "django_app", "db"),
    "litestar": ("asgi", "litestar_app", ""),
    "fastapi-redis": ("asgi", "fastapi_redis_app", ""),
}
"""Name -> what kind of app, the module that builds it, and where it keeps sessions."""


def records_in(redis_port: int) -> int:
    """How many keys a Redis holds."""
    with socket.create_connection(("127.0.0.1", redis_port)) as link:
        link.sendall(b"DBSIZE\r\n")
        return int(link.recv(64)[1:])


async def live(app: Any) -> None:
    """Start an app that has a lifespan."""
    import asyncio

    started = asyncio.Event()
    messages: asyncio.Queue[Any] = asyncio.Queue()
    messages.put_nowait({"type": "lifespan.startup"})

    async def send(message: Any) -> None:
        if message["type"] != "lifespan.startup.complete":
            raise RuntimeError(str(message))
        started.set()

    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.4"}, "state": {}}
    living = asyncio.ensure_future(app(scope, messages.get, send))
    waiting = asyncio.ensure_future(started.wait())
    await asyncio.wait({living, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if living.done():
        living.result()
    _LIVING.append(living)


_LIVING: list[Any] = []
"""What nobody else would keep from being collected."""


def site_of(name: str, redis_port: int) -> Site:
    """The peer of this name, as hazards are played on it."""
    kind, module_name, store = PEERS[name]
    module = importlib.import_module(f"bench.races.{module_name}")
    app = module.build(store, redis_port)
    server: Server
    if kind == "asgi":
        loop = Loop()
        loop.run(live(app))
        server = AsgiServer(app, loop)
    else:
        server = WsgiServer(app)
    return Site([server], module.records if store == "db" else lambda: records_in(redis_port))


def main() -> int:
    """Play all hazards once."""
    print(json.dumps(play_all(site_of(sys.argv[1], int(sys.argv[2])))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
