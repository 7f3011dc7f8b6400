"""One server of the promises about ended sessions: `python -m bench.ending.server`, its plan on the first line of standard input.

Three kinds: uvicorn on asyncio, uvicorn on uvloop, and gunicorn with one worker of eight threads (WSGI).
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, Final

import msgspec

from bench.ending.app import AsgiApp, AsgiBench, Bench, WsgiApp, WsgiBench
from sessile.lab.lifeline import tie_to_parent

__all__ = ["KINDS", "THREADS", "Plan"]

KINDS: Final = ("asyncio", "uvloop", "wsgi")
THREADS: Final = 8
STOP_S: Final = 2
KEEP_ALIVE_S: Final = 60


class Plan(msgspec.Struct, frozen=True):
    """All that one server is told."""

    name: str
    kind: str
    descriptor: int
    """Of the bound socket."""
    parent_pid: int
    settings: dict[str, str]
    """Of Sessile, by name."""


def serve_asgi(plan: Plan) -> None:
    """Serve with uvicorn until SIGTERM or SIGINT."""
    import uvicorn  # the plan is read, and the parent watched, before imports that take a while

    from sessile.asgi import SessionMiddleware

    later: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await later[0](scope, receive, send)

    sessions = SessionMiddleware(app, **plan.settings)  # type: ignore[arg-type]  # settings as text
    bench = Bench(plan.name, sessions.engine)
    later.append(AsgiApp(bench))
    config = uvicorn.Config(
        AsgiBench(sessions, bench),
        loop=plan.kind,
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=plan.descriptor)])


def serve_wsgi(plan: Plan) -> None:
    """Serve with gunicorn until SIGTERM or SIGINT."""
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]  # it has no types

    from sessile.wsgi import SessionMiddleware

    class Served(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        """One worker, made from the plan."""

        def load_config(self) -> None:
            options = {
                "bind": f"fd://{plan.descriptor}",
                "worker_class": "gthread",
                "workers": 1,
                "threads": THREADS,
                "timeout": 0,
                "graceful_timeout": STOP_S,
                "keepalive": KEEP_ALIVE_S,
                "loglevel": "error",
                "post_fork": lambda *_: tie_to_parent(os.getppid()),
            }
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            later: list[Any] = []

            def app(environ: Any, start_response: Any) -> Any:
                return later[0](environ, start_response)

            sessions = SessionMiddleware(app, **plan.settings)  # type: ignore[arg-type]  # settings as text
            bench = Bench(plan.name, sessions.engine)
            later.append(WsgiApp(bench))
            return WsgiBench(sessions, bench)

    Served().run()


def main() -> int:
    """Read the plan, and serve."""
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    tie_to_parent(plan.parent_pid)
    sys.argv = sys.argv[:1]
    (serve_wsgi if plan.kind == "wsgi" else serve_asgi)(plan)
    return 0


if __name__ == "__main__":
    sys.exit(main())
