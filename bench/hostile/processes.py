"""The proxy under trial as a process: started, waited for, weighed, stopped, and its log read.

What it prints goes to a file; `complaints()` are the lines no hostile client may cause. Descriptors and memory are
those of the process and its workers together, read from /proc.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from types import TracebackType

__all__ = ["Process", "Weight", "balancer", "balancer_config"]

_LISTENING: Final = re.compile(r"listening on (?:http://)?\S*?:(\d+)|running on http://\S*?:(\d+)", re.IGNORECASE)
_COMPLAINT: Final = re.compile(r"Traceback|\bERROR\b|\bCRITICAL\b|Exception|Error:|never (?:awaited|retrieved)|Fatal")
_ESTABLISHED: Final = 1
START_TIMEOUT_S: Final = 20
STOP_TIMEOUT_S: Final = 15


@dataclass(frozen=True, slots=True)
class Weight:
    """What a process and its children hold."""

    descriptors: int
    resident_bytes: int


class Process:
    """A server in a process of its own; a context manager that leaves none behind."""

    def __init__(self, command: Sequence[str], log: Path, *, port: int = 0, env: dict[str, str] | None = None) -> None:
        self._command = command
        self._env = env
        self._popen: subprocess.Popen[bytes] | None = None
        self._file: IO[bytes] | None = None
        self.log = log
        self.port = port
        """Where it listens; read from what it prints, unless given."""

    def __enter__(self) -> Self:
        self._file = self.log.open("wb")
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDEVMODE": "", **(self._env or {})}
        self._popen = subprocess.Popen(self._command, stdout=self._file, stderr=subprocess.STDOUT, env=env)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_listening():
            if self._popen.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"{' '.join(self._command[:4])} did not start: {self.text()[-2000:]}")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it by SIGTERM; by force where it does not hear that."""
        assert self._popen is not None
        assert self._file is not None
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        self._file.close()

    @property
    def is_ended(self) -> bool:
        """It ended, and not by force."""
        return self._popen is not None and self._popen.poll() not in {None, -signal.SIGKILL}

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def _is_listening(self) -> bool:
        if not self.port:
            match = _LISTENING.search(self.text())
            self.port = int(match[1] or match[2]) if match else 0
        return bool(self.port) and _accepts(self.port)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def complaints(self) -> list[str]:
        """The lines of the log that tell of an exception or an error."""
        return [line for line in self.text().splitlines() if _COMPLAINT.search(line)]

    def weigh(self) -> Weight:
        tree = _tree(self.pid)
        return Weight(sum(map(_descriptors, tree)), sum(map(_resident_bytes, tree)))

    async def let_go_of(self, client_ports: Collection[int], timeout_s: float) -> None:
        """Wait until it has ended its side of each connection from these ports, or until time is up."""
        deadline = time.monotonic() + timeout_s
        # What another process does with its sockets sets no event of ours. The kernel takes its time for the table.
        while await asyncio.to_thread(_is_any_held, self.port, client_ports) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.2)

    async def lightest(self, below: int, timeout_s: float) -> Weight:
        """Its weight once it holds at most so many descriptors, or when time is up."""
        deadline = time.monotonic() + timeout_s
        # What another process holds sets no event of ours.
        while (weight := self.weigh()).descriptors > below and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return weight


def _accepts(port: int) -> bool:
    import socket

    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def _is_any_held(port: int, client_ports: Collection[int]) -> bool:
    """Whether the server's side of one of these connections over IPv4 on this host is open, by the kernel's table."""
    table = Path("/proc/net/tcp").read_text()
    return any(f":{port:04X} 0100007F:{each:04X} {_ESTABLISHED:02X} " in table for each in client_ports)


def _tree(pid: int) -> list[int]:
    pids = [pid]
    for told in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in told.read_text().split():
                pids += _tree(int(child))
    return pids


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names suffice, and they come and go
    except OSError:
        return 0


def _resident_bytes(pid: int) -> int:
    try:
        match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0


def balancer_config(
    servers: dict[str, int],
    *,
    head_s: float = 1.5,
    idle_s: float = 3,
    connections: int = 0,
    buffer_requests: bool = True,
) -> str:
    """A balancer's TOML with waits short enough to see them end."""
    lines = [
        'listen = "127.0.0.1:0"',
        'secret = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"',
        f"buffer_requests = {str(buffer_requests).lower()}",
        "[timeouts]",
        f"head_s = {head_s}",
        f"body_s = {head_s}",
        "response_s = 3",
        "stream_s = 3",
        f"idle_s = {idle_s}",
        "linger_s = 0.5",
        *(["[limits]", f"connections_per_loopback = {connections}"] if connections else []),
        "[servers]",
        *(f'{name} = "127.0.0.1:{port}"' for name, port in servers.items()),
    ]
    return "\n".join(lines) + "\n"


def balancer(
    folder: Path,
    servers: dict[str, int],
    *,
    head_s: float = 1.5,
    idle_s: float = 3,
    connections: int = 0,
    name: str = "balancer",
    buffer_requests: bool = True,
) -> Process:
    """`sessile balance` in front of these servers, on a free port."""
    config = folder / f"{name}.toml"
    text = balancer_config(
        servers, head_s=head_s, idle_s=idle_s, connections=connections, buffer_requests=buffer_requests
    )
    config.write_text(text)
    command = [sys.executable, "-m", "sessile", "balance", "--config", str(config)]
    return Process(command, folder / f"{name}.log")
