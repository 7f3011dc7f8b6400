"""The client's side of the wire: bytes go out in the pieces asked for, answers come back read strictly.

What an answer to HEAD is, only the origin can say here, since a mutated request may have any method: the serial number
in the answer leads to the request that reached it. A `Talk` is one connection; reading from it never blocks for longer
than the deadline given.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.hostile.grammar import Fault, Fields, take_fields

__all__ = ["Answer", "Answers", "Talk", "read_answers"]

READ_BYTES: Final = 65_536
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) [^\x00-\x08\x0a-\x1f\x7f]*")

MethodOf = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """One final answer."""

    status: int
    fields: Fields
    body: bytes
    is_whole: bool
    serial: int | None
    """The origin's number for it; None for an answer of the proxy's own."""

    def value(self, name: bytes) -> bytes:
        return next((value for each, value in self.fields if each == name), b"")

    @property
    def is_refusal(self) -> bool:
        return self.serial is None and 400 <= self.status <= 599


@dataclass(frozen=True, slots=True)
class Answers:
    """What a client's stream says: answers, the interim ones counted, and what could not be read as one."""

    finals: tuple[Answer, ...]
    interim: int
    rest: bytes
    fault: str = ""


def read_answers(data: bytes, method_of: MethodOf, *, is_closed: bool) -> Answers:
    """Read a stream of answers (RFC 9112 §4, §6.3)."""
    finals: list[Answer] = []
    interim = 0
    while data:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            break
        line, _, block = head.partition(b"\r\n")
        match = _STATUS.fullmatch(line)
        if match is None:
            return Answers(tuple(finals), interim, data, "status line")
        status = int(match[1])
        try:
            fields = take_fields(block)
            if 100 <= status < 200 and status != 101:
                interim, data = interim + 1, rest
                continue
            answer, data = _final(status, fields, rest, method_of, is_closed=is_closed)
        except (Fault, ValueError) as fault:
            return Answers(tuple(finals), interim, data, str(fault))
        finals.append(answer)
        if not answer.is_whole:
            return Answers(tuple(finals), interim, b"")
    return Answers(tuple(finals), interim, data)


def _final(status: int, fields: Fields, rest: bytes, method_of: MethodOf, *, is_closed: bool) -> tuple[Answer, bytes]:
    named: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        named.setdefault(name, []).append(value)
    serials = named.get(b"x-serial")
    serial = int(serials[0]) if serials else None
    is_head = serial is not None and method_of(serial) == b"HEAD"
    if b"transfer-encoding" in named and b"content-length" in named:
        raise Fault("an answer with Transfer-Encoding and Content-Length")
    if is_head or status in {101, 204, 304}:
        return Answer(status, fields, b"", is_whole=True, serial=serial), rest
    if b"transfer-encoding" in named:
        body, end = _unchunk(rest)
        return Answer(status, fields, body, is_whole=end is not None, serial=serial), rest[end or len(rest) :]
    lengths = named.get(b"content-length", [])
    if len(lengths) > 1 or (lengths and not lengths[0].isdigit()):
        raise Fault("an answer whose Content-Length is not one number")
    length = int(lengths[0]) if lengths else len(rest)
    is_whole = len(rest) >= length if lengths else is_closed
    return Answer(status, fields, rest[:length], is_whole=is_whole, serial=serial), rest[length:]


def _unchunk(data: bytes) -> tuple[bytes, int | None]:
    parts: list[bytes] = []
    at = 0
    while (stop := data.find(b"\r\n", at)) >= 0:
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", data[at:stop]):
            raise Fault("an answer's chunk line")
        size, at = int(data[at:stop], 16), stop + 2
        if not size:
            return b"".join(parts), at + 2 if data.startswith(b"\r\n", at) else None
        parts.append(data[at : at + size])
        if data[at + size : at + size + 2] not in {b"\r\n", b"\r", b""}:
            raise Fault("an answer's chunk data is not followed by CRLF")
        at += size + 2
    return b"".join(parts), None


class Talk:
    """One client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method_of: MethodOf) -> None:
        self._reader = reader
        self._writer = writer
        self.method_of = method_of
        self.received = b""
        self.is_closed = False
        """Whether the other side has ended the connection."""
        self.is_reset = False
        """Whether it did so by a reset, which may take answers with it that were not read yet."""

    @classmethod
    async def open(cls, port: int, method_of: MethodOf = lambda _: b"GET") -> Talk:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        return cls(reader, writer, method_of)

    @property
    def port(self) -> int:
        """Our port."""
        return int(self._writer.get_extra_info("sockname")[1])

    async def send(self, *pieces: bytes) -> None:
        """Send the pieces one by one, each in a packet of its own as far as TCP lets one say."""
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(0.0005)
            if self._writer.is_closing():
                return
            with contextlib.suppress(ConnectionError):
                self._writer.write(piece)
                await self._writer.drain()

    def answers(self) -> Answers:
        return read_answers(self.received, self.method_of, is_closed=self.is_closed)

    async def read_some(self, timeout_s: float) -> bool:
        """Take what comes next; False when nothing came in time or will come any more."""
        if self.is_closed:
            return False
        try:
            data = await asyncio.wait_for(self._reader.read(READ_BYTES), timeout_s)
        except TimeoutError:
            return False
        except ConnectionError:
            data, self.is_reset = b"", True
        self.received += data
        self.is_closed = not data
        return True

    async def drain(self, timeout_s: float) -> int:
        """Read on and keep nothing, until the end or until nothing comes in time; returns how many bytes came."""
        count = 0
        while await self.read_some(timeout_s):
            count += len(self.received)
            self.received = b""
        return count

    async def read_until(self, enough: Callable[[Answers], bool], timeout_s: float) -> Answers:
        """Read until there is enough, the other side closes, or time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not enough(self.answers()) and not self.is_closed and loop.time() < deadline:
            await self.read_some(max(0.0, deadline - loop.time()))
        return self.answers()

    async def read_answer_number(self, count: int, timeout_s: float) -> Answers:
        """Read until so many whole final answers are there."""
        return await self.read_until(lambda answers: sum(each.is_whole for each in answers.finals) >= count, timeout_s)

    def end_sending(self) -> None:
        """Close our half, as a client does that has said all."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), 1)
