"""Mistakes by which servers of a cluster do not find each other."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final

from bench.mistakes import Seen
from bench.mistakes.processes import asked, free_ports, is_up, started, status_of, uvicorn, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = [
    "another_secret",
    "another_secret_with_a_store",
    "another_strategy",
    "firewalled_port",
    "mistyped_member",
    "without_tls",
]

SERVERS: Final = 3
TOLD_S: Final = 30.0
REQUESTS: Final = 9
ALTERNATING: Final = 60
ANOTHER: Final = {"SESSILE_SECRET": "another-secret-that-is-long-enough"}


def _play(
    folder: Path, done: str, members: Sequence[str], changed: dict[str, str], words: str, *, running: int = SERVERS
) -> Seen:
    """Servers of which the last that runs has other variables; what they log and what `sessile status` says.

    Args:
        folder: for logs.
        done: what was done.
        members: the addresses of nodes; as many servers run as are told.
        changed: the variables of the last one.
        words: in a line of every log, which is waited for.
        running: so many servers are started.
    """
    ports = free_ports(running)
    seen = Seen(done)
    with contextlib.ExitStack() as stack:
        servers = []
        for number, port in enumerate(ports):
            url = f"all-to-all://?members={','.join(members)}&me={members[number]}"
            variables = {"SESSILE_URL": url, **(changed if number == running - 1 else {})}
            servers.append(stack.enter_context(started(folder, f"web{number + 1}", uvicorn(port), **variables)))
        for server, port in zip(servers, ports, strict=True):
            if not is_up(server, port):
                seen.status = server.status
                seen.lines += server.lines()
                return seen
        wait_for(lambda: all(any(words in line for line in server.lines()) for server in servers), TOLD_S)
        seen.answers = [status for port in ports for status in asked(port, REQUESTS // running)]
        status, lines = status_of(ports)
        if status == 0:
            seen.faults.append("`sessile status` ended with 0")
        if not any("never met" in line for line in lines):
            seen.faults.append("`sessile status` names no member that was never met")
        for number, server in enumerate(servers):
            said = server.lines()
            seen.lines += [f"web{number + 1}: {line}" for line in said]
            if not said:
                seen.faults.append(f"web{number + 1} logs nothing")
        seen.lines += [f"sessile status ({status}): {line}" for line in lines]
    return seen


def _addresses() -> list[str]:
    return [f"127.0.0.1:{port}" for port in free_ports(SERVERS)]


def another_secret(folder: Path) -> Seen:
    """Its links fail in TLS, and its cookies are read nowhere else."""
    done = f"one of {SERVERS} servers is given another SESSILE_SECRET"
    return _play(folder, done, _addresses(), ANOTHER, "SESSILE_SECRET")


def another_secret_with_a_store(folder: Path) -> Seen:
    """No server talks to another: only cookies, and the status compared, tell."""
    seen = Seen(
        f"one of two servers on one store is given another SESSILE_SECRET; one browser, {ALTERNATING} requests in turn"
    )
    url = f"sqlite:///{folder / 'sessions.db'}"
    ports = free_ports(2)
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(started(folder, f"web{number}", uvicorn(port), SESSILE_URL=url, **secret))
            for number, (port, secret) in enumerate(zip(ports, ({}, ANOTHER), strict=True), start=1)
        ]
        if all(is_up(server, port) for server, port in zip(servers, ports, strict=True)):
            cookies: dict[str, str] = {}
            for number in range(ALTERNATING):
                seen.answers += asked(ports[number % 2], 1, cookies=cookies)
        status, lines = status_of(ports)
        if status == 0:
            seen.faults.append("`sessile status` ended with 0")
        for number, server in enumerate(servers, start=1):
            seen.lines += [f"web{number}: {line}" for line in server.lines()]
            if not server.lines():
                seen.faults.append(f"web{number} logs nothing")
        seen.lines += [f"sessile status ({status}): {line}" for line in lines]
    return seen


def another_strategy(folder: Path) -> Seen:
    """Its greeting is refused."""
    members = _addresses()
    done = f"one of {SERVERS} servers is given primary-backup:// and the others all-to-all://"
    changed = {"SESSILE_URL": f"primary-backup://?members={','.join(members)}&me={members[-1]}"}
    return _play(folder, done, members, changed, "strategy")


def without_tls(folder: Path) -> Seen:
    """It speaks in the clear where others want TLS."""
    done = f"one of {SERVERS} servers is given tls=off"
    return _play(folder, done, _addresses(), {"SESSILE_TLS": "off"}, "tls=")


def mistyped_member(folder: Path) -> Seen:
    """Nobody can resolve the name."""
    done = "the name of one of three members has a mistake in it, at both servers that run"
    members = [*_addresses()[:2], "web3.invalid:7400"]
    return _play(folder, done, members, {}, "did not meet", running=2)


def firewalled_port(folder: Path) -> Seen:
    """Dials get no answer."""
    done = "packets to the port of one of three members are dropped, at both servers that run"
    with _dropping() as dropped:
        return _play(folder, done, [*_addresses()[:2], dropped], {}, "did not meet", running=2)


@contextlib.contextmanager
def _dropping() -> Iterator[str]:
    """An address that answers no SYN, as behind a firewall: its queue of connections is full and nobody takes any."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        where = listener.getsockname()
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(where)
        yield f"127.0.0.1:{where[1]}"
