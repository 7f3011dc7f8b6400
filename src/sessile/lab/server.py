"""One server of the demo, as a process: `python -m sessile.lab.server`, its plan on the first line of standard input.

The plan comes that way because it holds secrets, and a command line is public. The socket is inherited, bound; it is
listened on only now, so until then the balancer is refused and asks another server.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

import msgspec

from sessile.errors import SessileError
from sessile.lab.lifeline import tie_to_parent

__all__ = ["ServerPlan", "serve"]

STOP_S: Final = 2
KEEP_ALIVE_S: Final = 60
"""An idle connection is closed by the balancer, which knows what it has sent. A server that wakes from a stop would close it
first and read what has come over it after."""


class ServerPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that one server is told."""

    name: str
    descriptor: int
    """Of the bound socket."""
    parent_pid: int
    url: str
    """Where its sessions are."""
    secret: str
    cookie_name: str
    token: str
    strategy: str
    routing: str
    dashboard: str

    def __repr__(self) -> str:
        return f"<ServerPlan {self.name}>"


def serve(plan: ServerPlan) -> None:
    """Serve until SIGTERM or SIGINT."""
    import uvicorn  # noqa: PLC0415 - the plan is read, and the parent watched, before imports that take a while

    from sessile.asgi import SessionMiddleware  # noqa: PLC0415
    from sessile.lab.app import About, DemoApp  # noqa: PLC0415
    from sessile.lab.vitals import Vitals  # noqa: PLC0415

    app = DemoApp(About(plan.name, plan.strategy, plan.routing, plan.dashboard, str(plan.parent_pid)))
    sessions = SessionMiddleware(app, url=plan.url, secret=plan.secret, cookie_name=plan.cookie_name)
    config = uvicorn.Config(
        Vitals(sessions, sessions.engine, plan.token),
        lifespan="on",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
    )
    listener = socket.socket(fileno=plan.descriptor)
    uvicorn.Server(config).run(sockets=[listener])


def main() -> int:
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=ServerPlan)
    tie_to_parent(plan.parent_pid)
    try:
        serve(plan)
    except SessileError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
