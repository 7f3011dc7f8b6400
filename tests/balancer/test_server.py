"""The balancer as processes: port, signals, workers, log lines."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessile.balancer.server import Log, bind
from sessile.balancer.settings import Limits
from sessile.errors import BalancerError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE_S = 20.0
PROGRAM = "import sys; from sessile.cli import main; sys.exit(main(sys.argv[1:]))"


class Named(BaseHTTPRequestHandler):
    """Answers with the name of its server; waits for `go` at /slow."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        if self.path == "/slow":
            server.waiting.set()
            server.go.wait(DEADLINE_S)
        body = server.label.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's signature
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, label: str) -> None:
        super().__init__(("127.0.0.1", 0), Named)
        self.label = label
        self.go, self.waiting = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def end(self) -> None:
        self.go.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class Balancer:
    """A `sessile balance` process and the lines it prints."""

    def __init__(self, *arguments: str, descriptors: int = 0) -> None:
        environment = {**os.environ, "SESSILE_SECRET": "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"}
        few = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors})); "
        command = [
            sys.executable,
            "-c",
            few * bool(descriptors) + PROGRAM,
            "balance",
            "--json",
            "--listen",
            "127.0.0.1:0",
            *arguments,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        self._buffer = b""
        self._selector = selectors.DefaultSelector()
        assert self.process.stdout is not None
        self._selector.register(self.process.stdout, selectors.EVENT_READ)
        self.before: list[dict[str, object]] = []
        """Events from before it listened."""
        self.port = int(str(self.event("listening", self.before)["url"]).rpartition(":")[2])

    def event(self, name: str, others: list[dict[str, object]] | None = None) -> dict[str, object]:
        """The next event of this name; those before it go to `others`."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                event: dict[str, object] = json.loads(line)
                if event["event"] == name:
                    return event
                if others is not None:
                    others.append(event)
                continue
            assert self.process.stdout is not None
            assert self._selector.select(deadline - time.monotonic()), f"no event {name}"
            data = os.read(self.process.stdout.fileno(), 65_536)
            assert data, f"ended before {name}"
            self._buffer += data

    def get(self, path: str = "/", cookie: str = "") -> tuple[bytes, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return body, (answer.headers.get("Set-Cookie") or "").split(";")[0]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._selector.close()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def servers(*labels: str) -> Iterator[list[Server]]:
    running = [Server(label) for label in labels]
    try:
        yield running
    finally:
        for server in running:
            server.end()


@contextmanager
def balancer(*arguments: str, descriptors: int = 0) -> Iterator[Balancer]:
    running = Balancer(*arguments, descriptors=descriptors)
    try:
        yield running
    finally:
        running.close()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops(workers: int, number: int) -> None:
    """Any number of workers serve one port, agree on every cookie, and end with status 0 and no process left."""
    with servers("s1", "s2") as (first, second):
        arguments = ("--workers", str(workers), "--server", f"s1={first.address}", "--server", f"s2={second.address}")
        with balancer(*arguments) as front:
            body, cookie = front.get()
            assert body in {b"s1", b"s2"} and cookie.startswith("affinity-")
            assert {front.get(cookie=cookie) for _ in range(20)} == {(body, "")}
            assert front.end(number) == 0
            with pytest.raises(ConnectionRefusedError):
                front.get()


@pytest.mark.parametrize("named", [None, 20_001])
def test_no_more_connections_than_descriptors_are_enough_for(named: int | None, tmp_path: Path) -> None:
    """If the system allows few descriptors, fewer connections are accepted; a warning is logged only if the settings name a number."""
    path = tmp_path / "balancer.toml"
    path.write_text("" if named is None else f"[limits]\nconnections = {named}\n")
    options = ("--config", str(path))
    with servers("s1") as (server,), balancer("--server", f"s1={server.address}", *options, descriptors=400) as front:
        warnings = [str(event["message"]) for event in front.before if event["event"] == "warning"]
        accepted = Limits().fitted_to(399).connections
        assert len(warnings) == (named is not None)
        for warning in warnings:
            assert "`ulimit -n 41155`" in warning and "connections in [limits]" in warning
            assert f": {accepted} are accepted" in warning
        with ExitStack() as stack:
            for _ in range(accepted):
                one = stack.enter_context(socket.create_connection(("127.0.0.1", front.port), DEADLINE_S))
                one.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert one.recv(65_536).startswith(b"HTTP/1.1 200 ")
            another = stack.enter_context(socket.create_connection(("127.0.0.1", front.port), DEADLINE_S))
            assert another.recv(65_536).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_under_way_ends_first(workers: int) -> None:
    """SIGTERM lets a request finish and refuses new connections meanwhile."""
    with servers("s1") as (server,), balancer("--workers", str(workers), "--server", f"s1={server.address}") as front:
        got: list[bytes] = []
        slow = threading.Thread(target=lambda: got.append(front.get("/slow")[0]))
        slow.start()
        assert server.waiting.wait(DEADLINE_S)
        front.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", front.port), 1).close()
            except OSError:  # refused, or reset while the listener closes
                break
        assert not got
        server.go.set()
        slow.join()
        assert got == [b"s1"] and front.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_settings_are_read_again(tmp_path: Path, workers: int) -> None:
    """SIGHUP adds a server from the file; a broken file is told about and changes nothing."""
    config = tmp_path / "balancer.toml"
    with servers("s1", "s2") as (first, second):
        config.write_text(f'[servers]\ns1 = "{first.address}"\n')
        with balancer("--workers", str(workers), "--config", str(config)) as front:
            assert {front.get()[0] for _ in range(4)} == {b"s1"}
            config.write_text(f'[servers]\ns1 = "{first.address}"\ns2 = "{second.address}"\n')
            front.process.send_signal(signal.SIGHUP)
            assert front.event("reloaded")["added"] == ["s2"]
            deadline = time.monotonic() + DEADLINE_S
            seen: set[bytes] = set()
            while seen != {b"s1", b"s2"}:
                assert time.monotonic() < deadline
                seen.add(front.get()[0])
            config.write_text("servers = 5")
            front.process.send_signal(signal.SIGHUP)
            assert "must be a table" in str(front.event("not reloaded")["message"])
            assert front.get()[0] in {b"s1", b"s2"}
            assert front.end() == 0


def test_health_is_told() -> None:
    """A server that goes and comes back is one line each."""
    with (
        servers("s1", "s2") as (first, second),
        balancer("--server", f"s1={first.address}", "--server", f"s2={second.address}") as front,
    ):
        first.end()
        event = front.event("server")
        assert (event["name"], event["state"]) == ("s1", "down")
        assert front.get()[0] == b"s2"
        assert front.end() == 0


def test_a_dead_worker_is_replaced() -> None:
    """When a worker is killed another takes its place, and the port is served throughout by the rest."""
    with servers("s1") as (server,), balancer("--workers", "2", "--server", f"s1={server.address}") as front:
        children = Path(f"/proc/{front.process.pid}/task/{front.process.pid}/children")
        if not children.exists():
            pytest.skip("this system does not list child processes")
        pids = set(children.read_text().split())
        assert len(pids) == 2
        os.kill(int(min(pids)), signal.SIGKILL)
        assert "replaced" in str(front.event("worker")["message"])
        deadline = time.monotonic() + DEADLINE_S
        while len(set(children.read_text().split())) < 2:
            assert time.monotonic() < deadline
        assert front.get()[0] == b"s1"
        assert front.end() == 0


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_taken_port_is_one_clear_line(is_shared: bool) -> None:  # noqa: FBT001 - a table's column
    """Even where the port could be shared, somebody else's is not taken."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(BalancerError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use"):
            bind(other.getsockname(), is_shared=is_shared)


def test_the_log_speaks_to_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, or one JSON object, per event."""
    for log in (Log(), Log(is_json=True)):
        log("server", {"name": "s1", "state": "down", "reason": "connection refused"})
    people, programs = capsys.readouterr().out.splitlines()
    assert people == "sessile balance: server s1 is down (connection refused)"
    assert json.loads(programs) == {"event": "server", "name": "s1", "state": "down", "reason": "connection refused"}


@pytest.mark.parametrize(
    ("event", "said"), [("reloaded", "settings read again: servers a"), ("learned", "servers learned from members: a")]
)
def test_servers_that_are_learned_are_not_settings(event: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The log says where they came from."""
    Log()(event, {"servers": ["a"]})
    assert capsys.readouterr().out == f"sessile balance: {said}\n"
