"""Where a body ends, counted by ourselves, and how it travels on.

A reader takes the bytes as they arrive, in any cut, and gives back what to pass on; `rest` is what lies beyond the end.
Chunked bodies are taken apart strictly (RFC 9112 section 7.1: digits capped, CRLF exact, extensions and trailers
bounded and dropped) and put together anew, so that nothing a sender hid in the framing travels on. No IO; memory is
bounded by the longest chunk line, whatever the body's size.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

__all__ = [
    "CHUNKED",
    "UNTIL_CLOSE",
    "BodyError",
    "BodyReader",
    "ChunkedReader",
    "LengthReader",
    "UntilCloseReader",
    "chunk",
    "reader_for",
]

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2
"""How long a body is, where it is no number of bytes: it says so itself, or ends with its connection."""
CHUNK_LINE_BYTES_MAX: Final = 256
TRAILER_BYTES_MAX: Final = 8192
CHUNKS_PER_TURN: Final = 64
"""At most this many are read at a time: a chunk of one byte costs as much as one of a megabyte."""
LAST_CHUNK: Final = b"0\r\n\r\n"

# The extension may be any visible text; it is not passed on. 15 hexadecimal digits are an exabyte.
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
# The usual chunk line, with its end.
_PLAIN_LINE: Final = re.compile(rb"([1-9A-Fa-f][0-9A-Fa-f]{0,14})\r\n")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")


class BodyError(Exception):
    """The bytes are not a body as its head announced it."""


class BodyReader(Protocol):
    """Takes bytes, gives what to pass on. Nothing may be fed once `is_done`."""

    is_done: bool
    is_behind: bool
    """What was fed holds more than one turn's share: feed nothing, in another turn, for the next of it."""
    rest: bytes
    """Bytes beyond the end, once it is reached."""

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`; raises BodyError."""
        ...


class LengthReader:
    """A body of a known number of bytes."""

    __slots__ = ("is_done", "remaining", "rest")

    is_behind = False

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.is_done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        size = len(data)
        if size < self.remaining:
            self.remaining -= size
            return data
        self.is_done = True
        if size > self.remaining:
            data, self.rest = data[: self.remaining], data[self.remaining :]
        self.remaining = 0
        return data


class UntilCloseReader:
    """A body that ends with its connection."""

    __slots__ = ("is_done", "rest")

    is_behind = False

    def __init__(self) -> None:
        self.is_done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        return data


class ChunkedReader:
    """A chunked body; `feed` gives the payload without any framing."""

    __slots__ = ("_at", "_buffer", "_remaining", "_state", "_trailer_bytes", "is_behind", "is_done", "rest")

    _LINE, _DATA, _DATA_END, _TRAILERS = range(4)

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        """Where in the buffer what is left of it begins."""
        self._state = self._LINE
        self._remaining = 0
        self._trailer_bytes = 0
        self.is_done = self.is_behind = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        at = 0
        if self._buffer:
            if data:
                data = self._buffer[self._at :] + data
            else:
                data, at = self._buffer, self._at
            self._buffer, self._at = b"", 0
        payload: list[bytes] = []
        size, chunks = len(data), CHUNKS_PER_TURN
        while at < size and not self.is_done:
            if self._state == self._LINE:
                at, chunks = _plain_chunks(data, at, payload, chunks)
                if not chunks or at == size:
                    break
                chunks -= 1
            after = self._step(data, at, payload)
            if after < 0:
                break
            at = after
        self.is_behind = not chunks and at < size and not self.is_done
        if self.is_done:
            self.rest = data[at:]
        elif self.is_behind:
            self._buffer, self._at = data, at
        else:
            self._buffer = data[at:]
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _step(self, data: bytes, at: int, payload: list[bytes]) -> int:
        """Read on by one line, or by what is here of a chunk's data; -1 where more must come first."""
        if self._state == self._DATA:
            piece = data[at : at + self._remaining]
            payload.append(piece)
            self._remaining -= len(piece)
            if not self._remaining:
                self._state = self._DATA_END
            return at + len(piece)
        if self._state == self._DATA_END:
            end = data[at : at + 2]
            if not b"\r\n".startswith(end):
                raise BodyError("chunk data is not followed by CRLF")
            if len(end) < 2:
                return -1
            self._state = self._LINE
            return at + 2
        stop = self._line_end(data, at)
        if stop < 0:
            return -1
        self._take_line(data[at:stop])
        return stop + 2

    def _line_end(self, data: bytes, at: int) -> int:
        limit = CHUNK_LINE_BYTES_MAX if self._state == self._LINE else TRAILER_BYTES_MAX - self._trailer_bytes
        end = data.find(b"\n", at, at + limit + 2)
        if end < 0:
            if len(data) - at >= limit + 2:
                raise BodyError("a chunk line or the trailers are too long")
            return -1
        if end == at or data[end - 1] != 0x0D:
            raise BodyError("a line of the chunked coding does not end in CRLF")
        return end - 1

    def _take_line(self, line: bytes) -> None:
        if self._state == self._LINE:
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise BodyError("a chunk size is malformed")
            self._remaining = int(match.group(1), 16)
            self._state = self._DATA if self._remaining else self._TRAILERS
        elif not line:
            self.is_done = True
        else:
            self._trailer_bytes += len(line) + 2
            if _TRAILER.fullmatch(line) is None:
                raise BodyError("a trailer field is malformed")


def _plain_chunks(data: bytes, at: int, payload: list[bytes], chunks: int) -> tuple[int, int]:
    """Read usual chunks, each whole with its end, as far as there are some: what the steps would do for them, in a row.

    Returns where the first other one begins, and how many may still be read in this turn.
    """
    while chunks:
        line = _PLAIN_LINE.match(data, at)
        if line is None:
            break
        start = line.end()
        stop = start + int(line[1], 16)
        if data[stop : stop + 2] != b"\r\n":
            break
        payload.append(data[start:stop])
        at = stop + 2
        chunks -= 1
    return at, chunks


def reader_for(body: int) -> BodyReader:
    """The reader for `RequestHead.body` or `ResponseHead.body`: a length, CHUNKED or UNTIL_CLOSE."""
    if body >= 0:
        return LengthReader(body)
    return ChunkedReader() if body == CHUNKED else UntilCloseReader()


def chunk(payload: bytes, *, is_last: bool) -> bytes:
    """`payload` in the chunked coding; an empty one adds no chunk, `is_last` adds the end."""
    framed = b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""
    return framed + LAST_CHUNK if is_last else framed
