"""Run a service on several servers, behind a balancer, and watch what becomes of its sessions.

Starts real server processes, each with its own memory, and the balancer in front of them, all on loopback. The service
is a page where one can log in, count and fill a cart; the dashboard, on the port after it, shows the servers and can
kill, pause, drain and restart them. Ctrl-C ends everything.

Examples:
  sessile demo
  sessile demo --routing round-robin            sessions get lost: the problem
  sessile demo --routing round-robin --strategy all-to-all
  sessile demo --routing round-robin --strategy primary-backup
  sessile demo --routing round-robin --strategy store     a Redis that fails over, if redis-server is installed
  sessile demo --servers 8 --port 9000
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from sessile.errors import SettingsError
from sessile.strategies import STRATEGIES

if TYPE_CHECKING:
    import argparse

HELP = "a service on several real servers, with a page to use it and one to break it"

ROUTINGS: Final = ("sticky", "round-robin")
NEEDED: Final = ("starlette", "uvicorn", "httptools")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The demo contract's options."""
    parser.add_argument(
        "--strategy", choices=[it.name for it in STRATEGIES], default="sticky", help="how sessions are kept (sticky)"
    )
    parser.add_argument("--servers", type=int, default=4, metavar="N", help="how many servers (4)")
    parser.add_argument(
        "--port", type=int, default=8080, help="of the service; the dashboard takes the next one (8080)"
    )
    parser.add_argument(
        "--routing", choices=ROUTINGS, default="sticky", help="how the balancer chooses a server (sticky)"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON once everything serves")


def run(arguments: argparse.Namespace) -> int:
    """Run it until a signal ends it.

    Raises:
        SettingsError: an option asks for what there is not, a port is taken, or something is not installed.
        SessileError: a process did not start.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise SettingsError(f"the demo needs {', '.join(missing)}: pip install 'sessile[lab]'")
    import asyncio  # noqa: PLC0415 - takes a while, and other subcommands do without

    from sessile.lab import demo  # noqa: PLC0415 - needs what was looked for above

    plan = demo.DemoPlan(arguments.strategy, arguments.servers, arguments.port, arguments.routing)
    if not arguments.json:
        servers = "1 server" if plan.servers == 1 else f"{plan.servers} servers"
        print(f"Starting {servers} and the balancer: strategy {plan.strategy}, routing {plan.routing}.", flush=True)
    asyncio.run(demo.run(plan, _print_json if arguments.json else _print_text, _say))
    if not arguments.json:
        print("All processes have ended.")
    return 0


def _print_json(status: dict[str, Any]) -> None:
    print(json.dumps(status), flush=True)


def _print_text(status: dict[str, Any]) -> None:
    for server in status["servers"]:
        print(f"  {server['name']:<9} http://127.0.0.1:{server['port']}/  process {server['pid']}")
    balancer = status["balancer"]
    for kept in status["store"]:
        print(f"  {kept['name']:<9} 127.0.0.1:{kept['port']}  process {kept['pid']}, {kept['role']}")
    print(f"  balancer  {status['url']}  process {balancer['pid']}\n")
    for remark in status["remarks"]:
        print(f"Mind: {remark}.\n")
    dashboard = f"http://127.0.0.1:{balancer['port'] + 1}/"
    print(f"The service:    {status['url']}  log in, count, fill a cart; see who answers")
    print(f"The dashboard:  {dashboard}  kill, pause, drain and restart servers; see what is lost")
    print("In a terminal:  sessile status" + (f" --port {balancer['port']}\n" if balancer["port"] != 8080 else "\n"))
    print("Ctrl-C ends everything.", flush=True)


def _say(line: str) -> None:
    """What a process says is passed on, and is no output of ours."""
    print(line, file=sys.stderr, flush=True)
