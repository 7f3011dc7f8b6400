from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sessile.lab import probe
from sessile.lab.probe import Answered, ask, stopped_among
from tests.lab.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


async def asked(answer: bytes | None, **options: float) -> tuple[Answered | None, bytes]:
    """What `ask` makes of a server that answers with these bytes, or not at all, and what it was sent."""
    received = b""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        with contextlib.suppress(ConnectionError):
            received = await reader.readuntil(b"\r\n\r\n")
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
            writer.close()
            await writer.wait_closed()
        writer.transport.abort()
        over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        found = await ask(port, "/x", method="POST", headers={"X-Token": "t"}, **options)
        await asyncio.wait_for(over.wait(), 30)
    return found, received


def test_an_answer_is_its_status_and_its_json() -> None:
    """The request is one that any HTTP server takes, and closes the connection."""
    answer, received = asyncio.run(asked(b'HTTP/1.1 503 No\r\nContent-Type: x\r\n\r\n{"a":1}'))
    assert answer == Answered(503, {"a": 1})
    assert received.startswith(b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nConnection: close\r\n" in received
    assert b"\r\nX-Token: t\r\n" in received


@pytest.mark.parametrize("data", [b"", b"garbage", b"HTTP/1.1 abc\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nX: y\r\n"])
def test_what_is_no_whole_answer_is_none(data: bytes) -> None:
    """A server that dies in the middle has not answered."""
    answer, _ = asyncio.run(asked(data))
    assert answer is None


def test_an_answer_without_json_has_no_data() -> None:
    """The status counts all the same."""
    answer, _ = asyncio.run(asked(b"HTTP/1.1 404 Not Found\r\n\r\nnothing"))
    assert answer == Answered(404, None)


def test_silence_and_refusal_are_no_answer(free_port: Callable[[], int]) -> None:
    """Neither raises, and silence is not waited out."""
    answer, received = asyncio.run(asked(None, timeout_s=0.05))
    assert answer is None
    assert received
    assert asyncio.run(ask(free_port(), "/")) is None


def test_an_endless_answer_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server sends is bounded by what is kept."""
    monkeypatch.setattr(probe, "ANSWER_BYTES_MAX", 1000)
    answer, _ = asyncio.run(asked(b"HTTP/1.1 200 OK\r\n\r\n" + b"1" * 1_000_000))
    assert answer is None or answer.status == 200


@pytest.fixture
def sleeper() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process.pid
    process.kill()
    process.wait()


def test_a_stopped_process_is_seen_as_such(sleeper: int) -> None:
    """By the kernel's word, from SIGSTOP to SIGCONT; a process that is gone is not stopped."""
    assert stopped_among([sleeper, os.getpid(), 2**22 + 1]) == set()
    os.kill(sleeper, signal.SIGSTOP)
    wait_until(lambda: stopped_among([sleeper, os.getpid()]) == {sleeper}, "the process is stopped")
    os.kill(sleeper, signal.SIGCONT)
    wait_until(lambda: stopped_among([sleeper]) == set(), "the process goes on")


def test_ps_says_the_same_where_there_is_no_proc(sleeper: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems without /proc have ps."""
    if shutil.which("ps") is None:
        pytest.skip("no ps here, and nothing asks for it here either")
    monkeypatch.setattr(probe, "_PROC", tmp_path)
    assert stopped_among([]) == set()
    assert stopped_among([sleeper]) == set()
    os.kill(sleeper, signal.SIGSTOP)
    wait_until(lambda: stopped_among([sleeper, os.getpid()]) == {sleeper}, "the process is stopped")
