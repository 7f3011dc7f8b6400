"""What can be seen of a process from outside: whether it is stopped, and what it answers on loopback.

`ask` is a small bounded HTTP/1.1 question, one connection each, for the demo's own endpoints only. Nothing here raises
for a process that does not answer: no answer is None.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any, Final, NamedTuple

from sessile.lab.ports import HOST

__all__ = ["Answered", "ask", "stopped_among"]

ANSWER_BYTES_MAX: Final = 1 << 20
_PROC: Final = Path("/proc")


class Answered(NamedTuple):
    """The status and the JSON of an answer; `data` is None where the body is none."""

    status: int
    data: Any


async def ask(
    port: int, path: str, *, method: str = "GET", headers: dict[str, str] | None = None, timeout_s: float = 0.5
) -> Answered | None:
    """One question to a server on loopback; None when no whole answer came in time."""
    fields = {"Host": f"{HOST}:{port}", "Connection": "close", "Content-Length": "0", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    try:
        async with asyncio.timeout(timeout_s):
            data = await _exchange(port, f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
    except (OSError, TimeoutError):
        return None
    return _parse(data)


async def _exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(request)
        data = bytearray()
        while len(data) <= ANSWER_BYTES_MAX and (chunk := await reader.read(65_536)):
            data += chunk
        return bytes(data)
    finally:
        writer.transport.abort()


def _parse(data: bytes) -> Answered | None:
    head, separator, body = data.partition(b"\r\n\r\n")
    parts = head.split(b" ", 2)
    if not separator or len(parts) < 2 or not parts[1].isdigit():
        return None
    try:
        return Answered(int(parts[1]), json.loads(body))
    except ValueError:
        return Answered(int(parts[1]), None)


def stopped_among(pids: list[int]) -> set[int]:
    """Those of these processes that the kernel has stopped."""
    if (_PROC / "self" / "stat").exists():
        return {pid for pid in pids if _letter_of(pid) in {"T", "t"}}
    return _stopped_by_ps(pids)


def _letter_of(pid: int) -> str:
    """The state letter of proc(5); empty for a process that is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]  # the name in parentheses may hold anything


def _stopped_by_ps(pids: list[int]) -> set[int]:
    """The same where there is no /proc."""
    if not pids:
        return set()
    command = ["ps", "-o", "pid=,stat=", "-p", ",".join(map(str, pids))]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    found = (line.split() for line in lines)
    return {int(parts[0]) for parts in found if len(parts) == 2 and parts[1].startswith("T")}
