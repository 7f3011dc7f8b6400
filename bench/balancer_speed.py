"""Requests per second and CPU per request of the balancer, beside HAProxy and nginx, interleaved in one run.

Ours is measured twice: compiled, as `SESSILE_COMPILE=1` builds it, where that can be done here, and as pure Python.
One core for the balancer under test, the other for wrk and the origin. Keep-alive, 64 connections, 128-byte answers.
Every request is a browser's: 16 fields, of which path, referrer, user agent, cookies and more differ from request to
request (2 048 different heads are drawn up and gone through), and it carries the affinity cookie of one of three
servers. HAProxy runs one thread with `cookie SRV insert indirect nocache`, nginx one worker with a sticky map; both add
X-Forwarded-For as we do. Only ratios within a round mean anything: the machine's speed moves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import environments
from bench.show import CannotShow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[[int, list[int], Path], list[str]]

__all__ = ["CONNECTIONS", "PURE", "CannotMeasure", "Sample", "measure", "missing_programs", "summary"]

CONNECTIONS = 64
PURE = "sessile pure"
ANSWER_BYTES = 128
HEADS = 2048
SERVERS = 3
READY_S = 15.0
TICK = os.sysconf("SC_CLK_TCK")
PROGRAMS = ("haproxy", "nginx", "wrk", "taskset")


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one balancer in one round."""

    name: str
    round: int
    requests_per_s: float
    cpu_us: float
    """CPU of the balancer per request, user and system."""
    busy: float
    """Share of its core the balancer used."""
    origin_busy: float
    errors: int


class CannotMeasure(Exception):
    """Something the comparison needs is not there. The message is one line that says what to do."""


def missing_programs() -> list[str]:
    """What this comparison needs and this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name) is None and shutil.which(f"/usr/sbin/{name}") is None]


def measure(rounds: int, seconds: float, progress: Callable[[str], None]) -> list[Sample]:
    """Run every balancer once per round, in turn; raises CannotMeasure where programs or cores are missing.

    `sessile` is the compiled balancer where there is a compiler, and then `sessile pure` is the other.
    """
    if missing := missing_programs():
        raise CannotMeasure(f"not installed: {', '.join(missing)} (apt install haproxy nginx-light wrk)")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise CannotMeasure("two cores are needed: one for the balancer, one for the load and the origin")
    ours: list[tuple[str, Start]] = [("sessile", sessile)]
    try:
        ours = [("sessile", partial(sessile, package=environments.compiled())), (PURE, sessile)]
    except CannotShow as problem:
        progress(str(problem))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sessile-bench-")))
        folder.chmod(0o755)
        ports = free_ports(SERVERS)
        command = [sys.executable, "-m", "bench.balancer_speed", "--origin", *map(str, ports)]
        origin = stack.enter_context(running(command, cores[1], ports[-1], folder))
        contenders = []
        for name, start in (ours[0], ("haproxy", haproxy), ("nginx", nginx), *ours[1:]):
            (port,) = free_ports(1)
            process = stack.enter_context(running(start(port, ports, folder), cores[0], port, folder))
            script = folder / f"{port}.lua"
            script.write_text(lua(browser_heads(cookies(port))))
            contenders.append((name, process.pid, port, script))
        for name, _, port, script in contenders:
            progress(f"warming up {name}")
            wrk(port, script, 1, cores[1])
        samples = []
        for number in range(1, rounds + 1):
            for name, pid, port, script in contenders:
                sample = one(name, number, pid, origin.pid, partial(wrk, port, script, seconds, cores[1]))
                samples.append(sample)
                progress(
                    f"round {number} {name:12} {sample.requests_per_s:8.0f} requests/s {sample.cpu_us:6.1f} µs CPU each, "
                    f"its core {sample.busy:.0%}, origin {sample.origin_busy:.0%}"
                )
        return samples


def one(name: str, number: int, pid: int, origin: int, load: Callable[[], tuple[int, int]]) -> Sample:
    """One run: requests, time and CPU around `load`."""
    began, cpu, cpu_origin = time.monotonic(), cpu_s(pid), cpu_s(origin)
    requests, errors = load()
    elapsed, cpu, cpu_origin = time.monotonic() - began, cpu_s(pid) - cpu, cpu_s(origin) - cpu_origin
    return Sample(
        name, number, requests / elapsed, cpu / max(requests, 1) * 1e6, cpu / elapsed, cpu_origin / elapsed, errors
    )


def summary(samples: list[Sample]) -> dict[str, float]:
    """Medians per balancer, and the median over rounds of our ratio to each other one, the pure one's to HAProxy too."""
    figures: dict[str, float] = {}
    names = list(dict.fromkeys(sample.name for sample in samples))
    by = {(sample.name, sample.round): sample for sample in samples}
    rounds = sorted({sample.round for sample in samples})
    for name in names:
        mine = [by[name, number] for number in rounds]
        figures[f"{name} requests/s"] = median(sample.requests_per_s for sample in mine)
        figures[f"{name} cpu"] = median(sample.cpu_us for sample in mine)
        figures[f"{name} busy"] = median(sample.busy for sample in mine)
    for peer in names[1:]:
        figures[f"ratio {peer}"] = median(
            by[names[0], number].requests_per_s / by[peer, number].requests_per_s for number in rounds
        )
        figures[f"cpu ratio {peer}"] = median(
            by[names[0], number].cpu_us / by[peer, number].cpu_us for number in rounds
        )
    if PURE in names:
        figures["pure ratio haproxy"] = median(
            by[PURE, number].requests_per_s / by["haproxy", number].requests_per_s for number in rounds
        )
    figures["origin busy"] = median(sample.origin_busy for sample in samples)
    figures["errors"] = sum(sample.errors for sample in samples)
    return figures


# --- the contenders: each returns its command line


def sessile(port: int, servers: list[int], folder: Path, package: Path | None = None) -> list[str]:
    """Ours, from the tree or from the folder of a package."""
    del folder
    named = [f"--server=s{index}=127.0.0.1:{server}" for index, server in enumerate(servers)]
    listen = ["--listen", f"127.0.0.1:{port}", "--secret", "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"]
    first = ["env", f"PYTHONPATH={package}"] if package else []
    return [*first, sys.executable, "-m", "sessile", "balance", *listen, *named]


def haproxy(port: int, servers: list[int], folder: Path) -> list[str]:
    lines = [
        "global", " nbthread 1", " maxconn 4096",
        "defaults", " mode http", " timeout connect 1s", " timeout client 30s", " timeout server 30s",
        " timeout http-request 10s", " timeout http-keep-alive 60s", " option forwardfor",
        "frontend f", f" bind 127.0.0.1:{port}", " default_backend b",
        "backend b", " balance roundrobin", " cookie SRV insert indirect nocache",
        " option httpchk GET /healthz", " default-server check inter 250ms fall 2 rise 1",
        *(f" server s{index} 127.0.0.1:{server} cookie s{index}" for index, server in enumerate(servers)),
    ]  # fmt: skip
    path = folder / "haproxy.cfg"
    path.write_text("\n".join(lines) + "\n")
    return ["haproxy", "-db", "-f", str(path)]


def nginx(port: int, servers: list[int], folder: Path) -> list[str]:
    """Sticky without the commercial module: a map from the cookie to an upstream of one server with the others behind."""
    pools, names = [], []
    for index, server in enumerate(servers):
        others = "".join(f" server 127.0.0.1:{other} backup;" for other in servers if other != server)
        pools.append(f"upstream n{index} {{ server 127.0.0.1:{server};{others} keepalive 64; }}")
        names.append(f"127.0.0.1:{server} n{index};")
    every = "".join(f" server 127.0.0.1:{server};" for server in servers)
    temp = "".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; worker_rlimit_nofile 8192;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; {temp} keepalive_requests 100000000; {' '.join(pools)}\n"
        f"upstream any {{{every} keepalive 64; }}\n"
        f"map $cookie_srv $pool {{ {' '.join(f'n{index} n{index};' for index in range(len(servers)))} default any; }}\n"
        f"map $upstream_addr $name {{ {' '.join(names)} }}\n"
        'map "$cookie_srv:$name" $cookie { "~^(?<a>.*):\\k<a>$" ""; default "srv=$name; Path=/"; }\n'
        f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://$pool; proxy_http_version 1.1;\n"
        ' proxy_set_header Connection ""; proxy_set_header Host $host; add_header Set-Cookie $cookie;\n'
        " proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; } } }\n"
    )
    return ["nginx", "-c", str(path), "-p", str(folder)]


# --- load


def cookies(port: int) -> list[str]:
    """One affinity cookie per server, as the balancer itself hands them out."""
    seen: dict[bytes, str] = {}
    for _ in range(40):
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/")
        answer = connection.getresponse()
        body, cookie = answer.read(), answer.headers.get("Set-Cookie", "")
        connection.close()
        if cookie:
            seen[body] = cookie.split(";")[0]
        if len(seen) == SERVERS:
            break
    if len(seen) != SERVERS:
        raise RuntimeError(f"the balancer on port {port} set cookies for {len(seen)} of {SERVERS} servers")
    return list(seen.values())


def browser_heads(affinity: list[str]) -> list[str]:
    """Heads as a browser sends them, no two of them alike, the affinity cookie among others."""
    fields = (
        "GET /shop/item/%d?ref=%x HTTP/1.1", "Host: shop.example.com", "Connection: keep-alive",
        "Cache-Control: max-age=0", 'sec-ch-ua: "Chromium";v="%d", "Not?A_Brand";v="8"', "sec-ch-ua-mobile: ?0",
        'sec-ch-ua-platform: "Linux"', "Upgrade-Insecure-Requests: 1",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.0.0 Safari/537.36",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document",
        "Referer: https://shop.example.com/list/%d", "Accept-Encoding: gzip, deflate, br",
        "Accept-Language: en-US,en;q=0.%d", "Cookie: _ga=GA1.2.%d.%d; sid=%032x; %s",
    )  # fmt: skip
    head = "\r\n".join([*fields, "", ""])
    heads = []
    for n in range(1, HEADS + 1):
        browser, session = n % 40 + 90, n << 96 | n * 7919
        cookie = affinity[n % len(affinity)]
        heads.append(head % (n * 7919, n * 104729, browser, browser, n, n % 10, n * 31, n * 17, session, cookie))
    return heads


def lua(heads: list[str]) -> str:
    """A wrk script that goes through these heads."""
    listed = ",\n".join(json.dumps(text) for text in heads)
    return (
        f"local heads = {{{listed}}}\nlocal n = 0\nrequest = function() n = n % {len(heads)} + 1 return heads[n] end\n"
    )


def wrk(port: int, script: Path, seconds: float, core: int) -> tuple[int, int]:
    """Load the port; returns the requests answered and the errors."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "-s", str(script)]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True)
    requests = re.search(r"(\d+) requests in", done.stdout)
    if requests is None:
        raise RuntimeError(f"wrk said: {done.stdout}{done.stderr}")
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    errors = (int(wrong.group(1)) if wrong else 0) + (sum(map(int, broken.groups())) if broken else 0)
    return int(requests.group(1)), errors


# --- processes


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one_socket in sockets:
        one_socket.bind(("127.0.0.1", 0))
    ports = [one_socket.getsockname()[1] for one_socket in sockets]
    for one_socket in sockets:
        one_socket.close()
    return ports


@contextmanager
def running(command: list[str], core: int, port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process pinned to `core` that listens on `port`; ended, and waited for, at the end."""
    program = shutil.which(command[0]) or f"/usr/sbin/{command[0]}"
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(["taskset", "-c", str(core), program, *command[1:]], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + READY_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {(folder / f'{port}.log').read_text()}")
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Origin(asyncio.Protocol):
    """The fastest server Python can be: an answer for every blank line. Its requests have no body."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        heads = data.count(b"\r\n\r\n")
        self._rest = data[data.rfind(b"\r\n\r\n") + 4 :] if heads else data
        if heads:
            self._write(self._answer * heads)


async def serve_origin(ports: list[int], origin: Callable[[bytes], Origin] = Origin) -> None:
    """Answer on all ports, each with a body of its own."""
    loop = asyncio.get_running_loop()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: origin\r\nContent-Length: %d\r\n\r\n" % ANSWER_BYTES
    for index, port in enumerate(ports):
        answer = head + b"server %d " % index + b"." * (ANSWER_BYTES - 9)
        await loop.create_server(lambda answer=answer: origin(answer), "127.0.0.1", port, backlog=4096)  # type: ignore[misc]
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--origin", nargs="+", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    arguments = parser.parse_args()
    if arguments.origin:
        import uvloop

        uvloop.run(serve_origin(arguments.origin))
        return
    samples = measure(arguments.rounds, arguments.seconds, lambda line: print(line, flush=True))
    print(json.dumps(summary(samples), indent=2))


if __name__ == "__main__":
    main()
