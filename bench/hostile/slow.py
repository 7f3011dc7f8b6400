"""Clients that take their time, all at once, while others want to be served.

Each kind holds a connection as long as it may; `crowd` starts so many of each, asks on in the meantime, and waits for
the proxy to give up on every one of them. `flood` opens more connections from one address than are allowed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bench.hostile.origin import BIG_BYTES, BIG_TARGET
from bench.hostile.wire import Talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.hostile.processes import Process

__all__ = ["KINDS", "Crowd", "Flood", "crowd", "flood"]

DRIP_S: Final = 0.1
"""Between two bytes of a client that never falls silent."""
GIVEN_UP_TIMEOUT_S: Final = 25.0
NORMAL_TIMEOUT_S: Final = 10.0
_GET: Final = b"GET /probe/%b HTTP/1.1\r\nHost: a.example\r\n\r\n"


@dataclass(slots=True)
class Crowd:
    """What became of slow clients and of those beside them."""

    slow: int = 0
    given_up: int = 0
    timeouts_told: int = 0
    """How many were told 408 before the end."""
    normal: int = 0
    """Requests of others while all the slow ones hung."""
    served: int = 0
    hanging: int = 0
    """How many slow ones were still there when the others had been served."""
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Flood:
    """What became of connections beyond the limit."""

    opened: int = 0
    served: int = 0
    refused: int = 0
    served_after: int = 0


async def _drip(talk: Talk, text: bytes) -> None:
    for at in range(len(text)):
        if talk.is_closed:
            return
        await talk.send(text[at : at + 1])
        await talk.read_some(DRIP_S)


async def slow_head(talk: Talk) -> None:
    await _drip(talk, b"GET /probe/slow HTTP/1.1\r\nHost: a.example\r\n" + b"X-Slow: y\r\n" * 500)


async def slow_body(talk: Talk) -> None:
    """Faster than falling silent, slower than any rate that a person's line has."""
    await talk.send(b"POST /probe/slow HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n")
    await _drip(talk, b"x" * 5_000)


async def stalled_body(talk: Talk) -> None:
    await talk.send(b"POST /probe/slow HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe")


async def silent(talk: Talk) -> None:
    """Connects and says nothing."""


async def idle_after_answer(talk: Talk) -> None:
    await talk.send(_GET % b"idle")
    await talk.read_answer_number(1, NORMAL_TIMEOUT_S)


async def half_closed(talk: Talk) -> None:
    """Says it has said all in the middle of a head."""
    await talk.send(b"GET /probe/half HTTP/1.1\r\nHost: a.exam")
    talk.end_sending()


async def slow_reader(talk: Talk) -> None:
    """Asks for more than all buffers hold and never reads it."""
    await talk.send(b"GET %b HTTP/1.1\r\nHost: a.example\r\n\r\n" % BIG_TARGET)


KINDS: Final[tuple[Callable[[Talk], Awaitable[None]], ...]] = (
    slow_head, slow_body, stalled_body, silent, idle_after_answer, half_closed, slow_reader,
)  # fmt: skip


async def crowd(process: Process, each: int, *, normal: int) -> Crowd:
    """So many clients of each slow kind, and so many normal requests while they hang."""
    seen = Crowd()
    port = process.port
    kinds = [kind for kind in KINDS for _ in range(each // 6 + 1 if kind is slow_reader else each)]
    talks = [(kind, await Talk.open(port)) for kind in kinds]
    seen.slow = len(talks)
    ports = [talk.port for kind, talk in talks if kind is slow_reader]
    released = asyncio.create_task(process.let_go_of(ports, GIVEN_UP_TIMEOUT_S))
    hanging = {asyncio.create_task(_hang(kind, talk, seen, released)) for kind, talk in talks}
    await asyncio.sleep(DRIP_S)
    await asyncio.gather(*(_ask(port, number, seen) for number in range(normal)))
    seen.hanging = sum(not task.done() for task in hanging)
    done, late = await asyncio.wait(hanging, timeout=GIVEN_UP_TIMEOUT_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    await asyncio.gather(released, *done)
    await asyncio.gather(*(talk.close() for _, talk in talks))
    return seen


async def _hang(kind: Callable[[Talk], Awaitable[None]], talk: Talk, seen: Crowd, released: asyncio.Task[None]) -> None:
    await kind(talk)
    before = len(talk.answers().finals) if kind is idle_after_answer else 0
    if kind is slow_reader:  # what it would notice lies behind what it does not read
        await asyncio.shield(released)
        count = await talk.drain(GIVEN_UP_TIMEOUT_S)
        seen.given_up += talk.is_closed and count < BIG_BYTES
        return
    while not talk.is_closed and await talk.read_some(GIVEN_UP_TIMEOUT_S):
        pass
    seen.given_up += talk.is_closed
    for answer in talk.answers().finals[before:]:
        if answer.status == 408:
            seen.timeouts_told += 1
        elif not answer.is_refusal:
            seen.wrong.append(f"{kind.__name__} got {talk.received[:300]!r}")


async def _ask(port: int, number: int, seen: Crowd) -> None:
    seen.normal += 1
    marker = b"marker-normal-%d" % number
    talk = await Talk.open(port)
    await talk.send(_GET % marker)
    answers = await talk.read_answer_number(1, NORMAL_TIMEOUT_S)
    if answers.finals and marker in answers.finals[0].body.split():
        seen.served += 1
    else:
        seen.wrong.append(f"a normal request got {talk.received[:300]!r}")
    await talk.close()


async def flood(port: int, count: int) -> Flood:
    """Open so many connections, hold them all, and ask on each; then let go and ask again."""
    seen = Flood()
    talks = []
    for number in range(count):
        talk = await Talk.open(port)
        talks.append(talk)
        await talk.send(_GET % (b"marker-flood-%d" % number))
        answers = await talk.read_answer_number(1, NORMAL_TIMEOUT_S)
        seen.opened += 1
        if answers.finals and answers.finals[0].serial is not None:
            seen.served += 1
        elif talk.is_closed or (answers.finals and answers.finals[0].status == 503):
            seen.refused += 1
    await asyncio.gather(*(talk.close() for talk in talks))
    after = Crowd()
    for number in range(10):
        await _ask_until_served(port, number, after)
    seen.served_after = after.served
    return seen


async def _ask_until_served(port: int, number: int, seen: Crowd) -> None:
    """The proxy may learn of the closing a moment later than we know of it."""
    deadline = asyncio.get_running_loop().time() + NORMAL_TIMEOUT_S
    before = seen.served
    while seen.served == before and asyncio.get_running_loop().time() < deadline:
        await _ask(port, number, seen)
