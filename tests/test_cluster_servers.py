"""Clusters under the servers people run: uvicorn with its lifespan and without, gunicorn with processes and threads."""

from __future__ import annotations

import signal
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from sessile.asgi import run
from sessile.errors import SettingsError
from tests.network.clusters import free_ports
from tests.server_process import ServerProcess, served

if TYPE_CHECKING:
    from pathlib import Path

UVICORN = ["uvicorn", "tests.served:asgi", "--port", "{port}", "--lifespan"]
GUNICORN = ["gunicorn", "--bind", "127.0.0.1:{port}", "tests.served:wsgi"]
SERVERS = {
    "uvicorn": [*UVICORN, "on"],
    "uvicorn without lifespan": [*UVICORN, "off"],
    "gunicorn": GUNICORN,
    "gunicorn with threads": [*GUNICORN, "--threads", "4"],
    "gunicorn, loaded before the fork": [*GUNICORN, "--preload"],
    "sessile.asgi.run": ["tests.served", "{port}"],
}


class Pair:
    """Two servers of a cluster, and one browser that goes to either."""

    def __init__(self, servers: list[ServerProcess]) -> None:
        self.servers = servers
        self.cookies: dict[str, str] = {}

    def ask(self, number: int) -> dict[str, Any]:
        server = self.servers[number % 2]
        server.cookies = self.cookies
        return server.ask()


def pair_of(stack: ExitStack, kind: str, folder: Path, *, strategy: str = "all-to-all", grace: str = "0") -> Pair:
    *ports, first, second = free_ports(4)
    nodes = [first, second]
    members = ",".join(f"127.0.0.1:{node}" for node in nodes)
    servers = []
    for port, node in zip(ports, nodes, strict=True):
        arguments = [argument.replace("{port}", str(port)) for argument in SERVERS[kind]]
        url = f"{strategy}://?members={members}&me=127.0.0.1:{node}&drain_grace={grace}"
        servers.append(stack.enter_context(served(arguments, port, folder, SESSILE_URL=url)))
    return Pair(servers)


@pytest.mark.parametrize("kind", SERVERS)
def test_two_servers_are_one(kind: str, tmp_path: Path) -> None:
    """A session goes on at the other server, exactly; one that stops says goodbye, and the other has everything."""
    with ExitStack() as stack:
        pair = pair_of(stack, kind, tmp_path)
        assert [pair.ask(number)["n"] for number in range(20)] == list(range(1, 21))
        first = pair.servers[0].process
        first.terminate()
        assert first.wait(30) in {0, -signal.SIGTERM}
        assert [pair.ask(1)["n"] for _ in range(3)] == [21, 22, 23]
        stats = pair.ask(1)["stats"]
        assert stats["stale"] == stats["unavailable"] == 0
        for server in pair.servers:
            assert "Traceback" not in server.log and "ERROR" not in server.log, server.log


def test_a_draining_server_goes_on_serving_until_its_time_has_come(tmp_path: Path) -> None:
    """SIGTERM: for `drain_grace` it answers and closes every connection; then it ends by itself."""
    with ExitStack() as stack:
        pair = pair_of(stack, "uvicorn", tmp_path, grace="1.5s")
        pair.ask(0)
        pair.servers[0].process.terminate()
        asked = [pair.ask(0)["n"] for _ in range(5)]
        assert asked == [2, 3, 4, 5, 6]
        with socket.create_connection(("127.0.0.1", pair.servers[0].port)) as link:
            link.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"connection: close" in link.makefile("rb").read().lower()
        assert pair.servers[0].process.wait(30) in {0, -signal.SIGTERM}
        assert pair.ask(1)["n"] == 7


@pytest.mark.parametrize("option", ["workers", "reload", "lifespan"])
def test_run_starts_one_process_with_its_lifespan(option: str) -> None:
    """What would make it another thing is refused in one line."""
    options: dict[str, Any] = {option: 2}
    with pytest.raises(SettingsError, match=f"{option} cannot be given"):
        run("tests.served:asgi", **options)


def test_a_balancer_learns_of_servers_from_any_member(tmp_path: Path) -> None:
    """It is told one node. A server that joins gets requests, and one that leaves gets none, without a word to it."""
    front, *rest = free_ports(7)
    ports, nodes = rest[:3], rest[3:]
    members = ",".join(f"127.0.0.1:{node}" for node in nodes)

    def url(number: int) -> str:
        where = f"me=127.0.0.1:{nodes[number]}&serves=127.0.0.1:{ports[number]}"
        return f"all-to-all://?members={members}&{where}&drain_grace=500ms"

    def arguments(number: int) -> list[str]:
        return ["uvicorn", "tests.served:asgi", "--port", str(ports[number]), "--lifespan", "on"]

    balance = ["sessile", "balance", "--listen", f"127.0.0.1:{front}", "--member", f"127.0.0.1:{nodes[0]}"]
    options = ["--affinity", "none", "--health-path", "/"]
    with ExitStack() as stack:
        servers = [stack.enter_context(served(arguments(n), ports[n], tmp_path, SESSILE_URL=url(n))) for n in range(2)]
        balancer = stack.enter_context(served([*balance, *options], front, tmp_path))

        def asked_until(wanted: set[int]) -> None:
            seen: list[int] = []
            deadline = time.monotonic() + 30
            while set(seen[-12:]) != wanted or len(seen) < 12:
                assert time.monotonic() < deadline, (seen[-12:], wanted, balancer.log)
                try:
                    seen.append(balancer.ask()["pid"])
                except AssertionError:  # 503 until it has learned of the first
                    time.sleep(0.05)

        asked_until({server.process.pid for server in servers})
        servers.append(stack.enter_context(served(arguments(2), ports[2], tmp_path, SESSILE_URL=url(2))))
        asked_until({server.process.pid for server in servers})
        servers[0].process.terminate()
        servers[0].process.wait(30)
        asked_until({server.process.pid for server in servers[1:]})
        before = balancer.ask()["n"]
        assert [balancer.ask()["n"] for _ in range(20)] == list(range(before + 1, before + 21))
