"""What others notice of an attack: their waiting time at our balancer, beside HAProxy's under the same attack.

One proxy at a time, with one server behind it that no attack keeps busy, since it is the proxy that is judged: bodies are
thrown away as they come. Run as a program, with a port, this is that server. A bystander asks on a connection that was open before the attack began, one
request after the other. HAProxy collects bodies too (`option http-buffer-request`), and has the same limit of connections.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from statistics import median
from typing import TYPE_CHECKING, Final

from bench.balancer_speed import Origin, free_ports, serve_origin
from bench.hostile.attacks import KINDS, LIMIT
from bench.hostile.processes import Process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PROGRAMS", "Seen", "attack", "beside_haproxy"]

PROGRAMS: Final = ("haproxy",)
THREADS: Final = 4
"""Of the server behind slow bodies."""
PATIENCE_S: Final = 5.0
"""As long a request counts that has no answer by then, or a refusal."""
REQUESTS_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Seen:
    """One attack on one proxy, as the bystander saw it."""

    kind: str
    proxy: str
    p50_ms: float
    asked: int
    served: int
    grown_bytes: int
    """How much more memory the proxy held at most while it was attacked."""
    descriptors: int
    """How many it held at most."""
    is_ended: bool
    """SIGTERM ended it."""


def beside_haproxy(folder: Path, kind: str, seconds: float) -> tuple[Seen, Seen]:
    """The same attack on our balancer and on HAProxy."""
    return attack(folder, "sessile", kind, seconds), attack(folder, "haproxy", kind, seconds)


def attack(folder: Path, proxy: str, kind: str, seconds: float) -> Seen:
    """Attack a proxy for so long, and ask it meanwhile."""
    with ExitStack() as stack:
        origin = stack.enter_context(_server(folder, has_few_threads=kind == "slow-bodies"))
        process = stack.enter_context(_proxy(folder, proxy, origin.port))
        bystander = HTTPConnection("127.0.0.1", process.port, timeout=PATIENCE_S)
        stack.callback(bystander.close)
        assert _ask(bystander), "nobody attacks yet"
        before = process.weigh()
        times: list[float] = []
        served, weights = 0, [before]
        with _attacking(kind, process.port):
            end = time.monotonic() + seconds
            while time.monotonic() < end and len(times) < REQUESTS_MAX:
                began = time.monotonic()
                is_served = _ask(bystander)
                times.append(time.monotonic() - began if is_served else PATIENCE_S)
                served += is_served
                weights.append(process.weigh())
        process.stop()
        grown = max(weight.resident_bytes for weight in weights) - before.resident_bytes
        return Seen(
            kind,
            proxy,
            median(times) * 1e3,
            len(times),
            served,
            grown,
            max(weight.descriptors for weight in weights),
            process.is_ended,
        )


def _ask(connection: HTTPConnection) -> bool:
    """Whether a request is answered; one that is not counts with all the patience there was."""
    began = time.monotonic()
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
    except (OSError, HTTPException):
        connection.close()
        time.sleep(max(0.0, began + PATIENCE_S - time.monotonic()))
        return False
    return answer.status == 200


@contextmanager
def _attacking(kind: str, port: int) -> Iterator[None]:
    assert kind in KINDS
    command = [sys.executable, "-m", "bench.hostile.attacks", kind, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as attackers:
        try:
            assert attackers.stdout is not None
            assert attackers.stdout.readline() == b"attacking\n"
            yield
        finally:
            attackers.kill()


def _server(folder: Path, *, has_few_threads: bool) -> Process:
    (port,) = free_ports(1)
    if has_few_threads:
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "-b",
            f"127.0.0.1:{port}",
            "-k",
            "gthread",
            "--threads",
            str(THREADS),
        ]
        return Process([*command, "bench.hostile.bystanders:reads_all"], folder / f"{port}.log", port=port)
    return Process([sys.executable, "-m", "bench.hostile.bystanders", str(port)], folder / f"{port}.log", port=port)


class Swallower(Origin):
    """Answers requests that have no body; of any other it answers nothing and keeps nothing."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(answer)
        self._is_body = False

    def data_received(self, data: bytes) -> None:
        self._is_body = self._is_body or data.startswith(b"POST")
        if not self._is_body:
            super().data_received(data)


def reads_all(environ: dict[str, object], start: object) -> list[bytes]:
    """A WSGI app that reads the body first, as most do."""
    environ["wsgi.input"].read(int(str(environ.get("CONTENT_LENGTH") or 0)))  # type: ignore[attr-defined]
    start("200 OK", [("Content-Length", "2")])  # type: ignore[operator]
    return [b"ok"]


def _proxy(folder: Path, name: str, origin: int) -> Process:
    (port,) = free_ports(1)
    if name == "sessile":
        path = folder / f"{port}.toml"
        path.write_text(
            f'listen = "127.0.0.1:{port}"\nsecret = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"\n'
            f'[limits]\nconnections = {LIMIT}\n[servers]\ns1 = "127.0.0.1:{origin}"\n'
        )
        return Process(
            [sys.executable, "-m", "sessile", "balance", "--config", str(path)], folder / f"{port}.log", port=port
        )
    lines = [
        "global", " nbthread 1", f" maxconn {LIMIT}", "defaults", " mode http", " timeout connect 1s", " timeout client 30s",
        " timeout server 60s", " timeout http-request 30s", " option http-buffer-request", " option forwardfor",
        "frontend f", f" bind 127.0.0.1:{port}", " default_backend b",
        "backend b", " cookie SRV insert indirect nocache", " option httpchk GET /healthz",
        " default-server check inter 250ms fall 2 rise 1", f" server s1 127.0.0.1:{origin} cookie s1",
    ]  # fmt: skip
    path = folder / f"{port}.cfg"
    path.write_text("\n".join(lines) + "\n")
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    return Process([program, "-db", "-f", str(path)], folder / f"{port}.log", port=port)


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve_origin([int(sys.argv[1])], Swallower))
