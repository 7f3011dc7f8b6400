"""The judge, judged: a naive proxy must be found guilty of each thing it does, and of nothing that it does not."""

from __future__ import annotations

import asyncio
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from bench.hostile.answer_trial import AnswerTrial
from bench.hostile.answers import HostileAnswer, Seen, all_answers
from bench.hostile.judge import Judge
from bench.hostile.origin import Origin
from bench.hostile.processes import Process
from bench.hostile.vectors import all_vectors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.hostile.guilt import Guilt
    from bench.hostile.vector import Vector

VECTORS = {vector.name: vector for vector in all_vectors()}
ANSWERS = {answer.name: answer for answer in all_answers()}


class NaiveProxy:
    """Forwards blindly over one connection to the server that all its clients share."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.turn = asyncio.Lock()
        self.server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        self.listener = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return int(self.listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self.listener.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.hang_up()
        await asyncio.sleep(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while True:
                head, body = await self.message(reader)
                async with self.turn:
                    if self.server is None:
                        self.server = await asyncio.open_connection("127.0.0.1", self.server_port)
                    self.server[1].write(head + body)
                    head, body = await asyncio.wait_for(self.message(self.server[0]), 1)
                writer.write(head + body)
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.CancelledError):
            self.hang_up()
        finally:
            writer.close()

    def hang_up(self) -> None:
        if self.server is not None:
            self.server[1].close()
        self.server = None

    async def message(self, reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length:\s*([^\r]*)", head)
        return head, await reader.readexactly(int(length[1])) if length else b""


async def try_naively(vector: Vector, *, rules: bool) -> list[Guilt]:
    origin = Origin()
    proxy = NaiveProxy(await origin.start())
    judge = Judge(await proxy.start(), origin, rules=rules, answer_timeout_s=1)
    await judge.try_vector(vector, 1)
    await judge.close()
    await proxy.stop()
    await origin.stop()
    return judge.tally.guilts


async def lie_naively(answer: HostileAnswer) -> list[Guilt]:
    origin = Origin({answer.target: answer})
    proxy = NaiveProxy(await origin.start())
    trial = AnswerTrial(await proxy.start(), origin, timeout_s=1)
    await trial.try_answer(answer)
    await trial.close()
    await proxy.stop()
    await origin.stop()
    return trial.guilts


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("both-cl-te", {"DISAGREEMENT", "LENIENT"}),
        ("both-te-cl", {"DISAGREEMENT", "SMUGGLED", "NO ANSWER", "LENIENT", "REACHED"}),
        ("value-nul", {"DISAGREEMENT", "REACHED"}),
        ("length-leading-zero", {"DISAGREEMENT", "LENIENT"}),
        ("length-underscore", {"DISAGREEMENT", "LENIENT"}),
        ("fold-coding", {"DISAGREEMENT", "REACHED"}),
        ("underscore", {"LENIENT"}),
        ("underscore-coding", {"LENIENT"}),
        ("host-two", {"LENIENT", "DISAGREEMENT"}),
        ("target-absolute-other-host", {"LENIENT"}),
        ("nominate-cookie", {"LENIENT"}),
        ("forwarding-for", {"CHANGED"}),
        ("hop-nominated", {"CHANGED"}),
        ("affinity-alone", {"CHANGED"}),
        ("target-absolute-same-host", {"CHANGED"}),
    ],
)
def test_a_naive_proxy_is_found_guilty(name: str, kinds: set[str]) -> None:
    """Each kind of guilt is found where it is committed, and the vector's own expectation falls too."""
    vector = VECTORS.get(name) or VECTORS[f"name-{name}"]
    found = {guilt.kind for guilt in asyncio.run(try_naively(vector, rules=True))}
    assert found & kinds
    assert "EXPECTATION" in found


@pytest.mark.parametrize("name", ["plain-repeated", "length-blanks", "body-get", "pipeline-two", "data-nothing"])
def test_what_a_naive_proxy_does_right_is_not_held_against_it(name: str) -> None:
    """Without the rules that it does not promise, plain requests and their answers are innocent."""
    vector = VECTORS.get(name) or VECTORS["value-empty"]
    assert [guilt for guilt in asyncio.run(try_naively(vector, rules=False)) if guilt.kind != "EXPECTATION"] == []


@pytest.mark.parametrize(
    "name", ["beyond-length", "beyond-later", "beyond-many", "head-with-body", "204-with-body", "switch-unasked"]
)
def test_a_naive_proxy_gives_one_users_bytes_to_another(name: str) -> None:
    """Bytes beyond an answer that reach the next client are found."""
    found = {guilt.kind for guilt in asyncio.run(lie_naively(ANSWERS[name]))}
    assert found & {"FOREIGN ANSWER", "PROBE"}


def test_a_clean_answer_is_innocent() -> None:
    """A server that does not lie makes nobody guilty."""
    raw = b"HTTP/1.1 200 OK\r\nX-Serial: @SERIAL@\r\nContent-Length: 5\r\n\r\nhello"
    assert asyncio.run(lie_naively(HostileAnswer("clean", raw, "", Seen.CLEAN, b"hello"))) == []


HAPROXY = """
defaults
  mode http
  timeout connect 1s
  timeout client 3s
  timeout server 3s
  timeout http-request 2s
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  http-reuse always
  server s1 127.0.0.1:{server}
"""


@pytest.mark.slow
@pytest.mark.needs("haproxy")
def test_known_leniencies_of_haproxy_are_found(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """HAProxy 2.6 passes NUL in a value and `Content-Length: 010`, and neither confuses its clients nor their answers."""

    async def trial() -> dict[str, set[str]]:
        origin = Origin()
        config, port = tmp_path / "haproxy.cfg", free_port()
        config.write_text(HAPROXY.format(port=port, server=await origin.start()))
        program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        with Process([str(program), "-db", "-f", str(config)], tmp_path / "haproxy.log", port=port):
            found: dict[str, set[str]] = {}
            for number, name in enumerate(("value-nul", "length-octal", "plain-browser", "both-cl-te", "host-none")):
                judge = Judge(port, origin, rules=False)
                await judge.try_vector(VECTORS[name], number)
                await judge.close()
                found[name] = {guilt.kind for guilt in judge.tally.guilts}
        await origin.stop()
        return found

    found = asyncio.run(trial())
    assert "DISAGREEMENT" in found["value-nul"]
    assert "DISAGREEMENT" in found["length-octal"]
    assert not found["plain-browser"] & {"DISAGREEMENT", "SMUGGLED", "FOREIGN ANSWER", "CHANGED"}
    assert not any(kinds & {"FOREIGN ANSWER", "PROBE"} for kinds in found.values())
