"""One server of the shows about ended sessions: `python -m bench.ending.server`, with its plan on the first line of standard input.

Four kinds: uvicorn on asyncio, uvicorn on uvloop, and, for WSGI, gunicorn with one worker of eight threads and a server with a thread for
each connection, such as frameworks bring along for development.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import msgspec

from bench.browser import HOST
from bench.ending.app import AsgiApp, AsgiBench, Bench, WsgiApp, WsgiBench
from sessile.lab.lifeline import tie_to_parent

__all__ = ["KINDS", "THREADS", "Plan"]

KINDS: Final = ("asyncio", "uvloop", "gunicorn", "threads")
THREADS: Final = 8
STOP_S: Final = 2
KEEP_ALIVE_S: Final = 60


class Plan(msgspec.Struct, frozen=True):
    """The plan of one server."""

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


def wsgi_app(plan: Plan) -> Any:
    """The application, made in the process that serves it."""
    from sessile.wsgi import SessionMiddleware

    later: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        return later[0](environ, start_response)

    sessions = SessionMiddleware(app, **plan.settings)  # type: ignore[arg-type]  # settings as text
    bench = Bench(plan.name, sessions.engine)
    later.append(WsgiApp(bench))
    return WsgiBench(sessions, bench)


class Threads(ThreadingMixIn, WSGIServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 256

    def server_bind(self) -> None:
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()


class Quiet(WSGIRequestHandler):
    """Writes no log."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as the base class calls it
        del format, args


def serve_threads(plan: Plan) -> None:
    """Serve with a thread for each connection until SIGTERM or SIGINT."""
    server = Threads((HOST, 0), Quiet, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=plan.descriptor)
    server.server_bind()
    server.server_activate()
    server.set_app(wsgi_app(plan))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.serve_forever()


def serve_gunicorn(plan: Plan) -> None:
    """Serve with gunicorn until SIGTERM or SIGINT."""
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]  # it has no types

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
                "post_fork": lambda _, __: tie_to_parent(os.getppid()),
            }
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return wsgi_app(plan)

    Served().run()


def main() -> int:
    """Read the plan, and serve."""
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    tie_to_parent(plan.parent_pid)
    sys.argv = sys.argv[:1]
    {"gunicorn": serve_gunicorn, "threads": serve_threads}.get(plan.kind, serve_asgi)(plan)
    return 0


if __name__ == "__main__":
    sys.exit(main())
