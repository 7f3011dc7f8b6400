"""RFC 9112, read as strictly as it is written: a stream of bytes is so many requests and then one kind of end.

It knows no proxy and no policy. It holds three invariants: a head is looked at only when it is complete (CRLF CRLF), a
request is told only when its body is complete, and the bytes after the last told request are never interpreted twice.
Everything RFC 9112 lets a recipient repair (bare LF, obs-fold, several equal lengths) is a fault here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

__all__ = ["Body", "End", "Fault", "Reading", "Request", "framing", "read_requests", "take_fields"]

Fields = tuple[tuple[bytes, bytes], ...]

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE: Final = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELD: Final = re.compile(
    rb"(" + TOKEN + rb"):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[ \t\x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*"
)
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,18}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?)")
LENGTH_MAX: Final = 2**63 - 1
CHUNK_LINE_BYTES_MAX: Final = 4096


class Fault(Exception):
    """The bytes are no HTTP/1.1 message; the text says which rule they break."""


class End(Enum):
    """How a stream of requests ends."""

    BOUNDARY = "after a whole request"
    INSIDE = "inside a request"
    FAULT = "at something that is no request"
    CLOSED = "after a request that closes the connection"


@dataclass(frozen=True, slots=True)
class Request:
    """One request; field names are lower-cased, values have lost the blanks around them."""

    method: bytes
    target: bytes
    version: bytes
    fields: Fields
    body: bytes = b""
    head_bytes: int = field(default=0, compare=False)
    """How long its head was, line ends included."""

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each == name]

    @property
    def closes(self) -> bool:
        options = {option.strip(b" \t").lower() for value in self.values(b"connection") for option in value.split(b",")}
        return b"close" in options or (self.version == b"1.0" and b"keep-alive" not in options)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a stream says: the whole requests, how it ends, and the one whose head is good and whose body is not whole."""

    requests: tuple[Request, ...]
    end: End
    why: str = ""
    begun: Request | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """A body and where it ends; `end` is None while bytes are missing."""

    data: bytes
    end: int | None
    trailers: Fields = ()


def read_requests(data: bytes, *, skip_empty_lines: bool = True) -> Reading:
    """Read a whole stream; RFC 9112 §2.2 has a server skip empty lines before a request line."""
    told: list[Request] = []
    at = 0
    while True:
        while skip_empty_lines and data.startswith(b"\r\n", at):
            at += 2
        if at >= len(data):
            return Reading(tuple(told), End.BOUNDARY)
        head_end = data.find(b"\r\n\r\n", at)
        if head_end < 0:
            return Reading(tuple(told), End.INSIDE)
        try:
            head = _head(data[at:head_end])
            length = framing(head.fields, head.version)
        except Fault as fault:
            return Reading(tuple(told), End.FAULT, str(fault))
        try:
            body = _chunked(data, head_end + 4) if length is None else _counted(length, data, head_end + 4)
        except Fault as fault:
            return Reading(tuple(told), End.FAULT, str(fault), head)
        if body.end is None:
            return Reading(tuple(told), End.INSIDE, "", head)
        told.append(replace(head, body=body.data))
        at = body.end
        if head.closes:
            return Reading(tuple(told), End.CLOSED)


def _head(head: bytes) -> Request:
    line, _, rest = head.partition(b"\r\n")
    match = _LINE.fullmatch(line)
    if match is None:
        raise Fault("request line (RFC 9112 §3)")
    return Request(match[1], match[2], match[3] + b"." + match[4], take_fields(rest), head_bytes=len(head) + 4)


def take_fields(block: bytes) -> Fields:
    """The field lines of a head or trailer section without its last CRLF. Raises Fault (RFC 9112 §5)."""
    fields = []
    for line in block.split(b"\r\n") if block else ():
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Fault("field line (RFC 9112 §5)")
        fields.append((match[1].lower(), match[2]))
    return tuple(fields)


def framing(fields: Fields, version: bytes) -> int | None:
    """How long the body of a request is; None when it is chunked. Raises Fault (RFC 9112 §6.3)."""
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    lengths = [value for name, value in fields if name == b"content-length"]
    if codings:
        if lengths:
            raise Fault("Transfer-Encoding and Content-Length (RFC 9112 §6.3)")
        if version == b"1.0":
            raise Fault("Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1)")
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise Fault("Transfer-Encoding is not exactly chunked (RFC 9112 §6.3)")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]) or int(lengths[0]) > LENGTH_MAX:
        raise Fault("Content-Length is not one number (RFC 9112 §6.3)")
    return int(lengths[0])


def _counted(length: int, data: bytes, at: int) -> Body:
    end = at + length
    return Body(data[at:end], end if end <= len(data) else None)


def _chunked(data: bytes, at: int) -> Body:
    parts: list[bytes] = []
    while True:
        stop = data.find(b"\r\n", at)
        line = data[at : stop if stop >= 0 else len(data)]
        if len(line) > CHUNK_LINE_BYTES_MAX:
            raise Fault("chunk line too long (RFC 9112 §7.1.1)")
        if stop < 0:
            return Body(b"".join(parts), None)
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise Fault("chunk line (RFC 9112 §7.1)")
        size, at = int(match[1], 16), stop + 2
        if not size:
            return _trailers(b"".join(parts), data, at)
        parts.append(data[at : at + size])
        at += size
        if len(data) < at + 2:
            if len(data) > at and data[at:] != b"\r":
                raise Fault("chunk data is longer than its size (RFC 9112 §7.1)")
            return Body(b"".join(parts), None)
        if data[at : at + 2] != b"\r\n":
            raise Fault("chunk data is not followed by CRLF (RFC 9112 §7.1)")
        at += 2


def _trailers(body: bytes, data: bytes, at: int) -> Body:
    if data.startswith(b"\r\n", at):
        return Body(body, at + 2)
    stop = data.find(b"\r\n\r\n", at)
    if stop < 0:
        return Body(body, None)
    return Body(body, stop + 4, take_fields(data[at:stop]))
