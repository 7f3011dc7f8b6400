"""Every parser that a client or a server reaches, and the places in a message where it could be made to work long.

A place is a message with a gap. Client and server are as hostile here as they are over the wire; what a parser keeps from
one message to the next is new for each reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sessile.balancer import checks
from sessile.balancer.bodies import BodyError, ChunkedReader
from sessile.balancer.refusals import Refusal, UpstreamFault
from sessile.balancer.request_head import Peer
from sessile.balancer.requests import RequestParser
from sessile.balancer.responses import ResponseParser, without_caching
from sessile.cookies import CookiePolicy
from sessile.settings import Settings

__all__ = ["PLACES", "Place"]

Read = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Place:
    """A gap in a message: what stands before and after it, and what reads the whole."""

    name: str
    reader: Callable[[], Read]
    """Gives the parser, as new."""
    before: bytes
    after: bytes
    refusals: tuple[type[Exception], ...] = ()
    """What the parser may raise."""
    size: int = 1_600
    """Bytes in the gap, for a start; nine times as many are in the longest message, and a head may have 16 384."""


def _requests(affinity: tuple[str, bytes] | None, peer: Peer) -> Callable[[], Read]:
    parser = RequestParser(affinity, fields_max=10_000)
    return lambda: lambda head: parser.parse(head, peer)


def _responses() -> Read:
    return _RESPONSES.parse


def _usual_responses() -> Read:
    return _RESPONSES.usual.match


def _body() -> Read:
    return _read_all(ChunkedReader())


def _read_all(reader: ChunkedReader) -> Read:
    def read(data: bytes) -> None:
        reader.feed(data)

    return read


def _dripping() -> Read:
    """The same body, one byte at a time."""
    reader = ChunkedReader()

    def read(data: bytes) -> None:
        for at in range(len(data)):
            if reader.is_done:
                return
            reader.feed(data[at : at + 1])

    return read


_RESPONSES: Final = ResponseParser(cookie=b"affinity", header=b"x-room", fields_max=10_000)
_SESSION_COOKIES: Final = CookiePolicy(Settings())
_STRANGER: Final = Peer.of("192.0.2.1")
_TRUSTED: Final = Peer.of("192.0.2.1", is_trusted=True)
_READERS: Final = {
    "cookie": _requests(("cookie", b"affinity"), _STRANGER),
    "header": _requests(("header", b"x-room"), _STRANGER),
    "query": _requests(("query", b"room"), _STRANGER),
    "trusted": _requests(("cookie", b"affinity"), _TRUSTED),
}
_FIELDS: Final = (
    b"Connection", b"Cookie", b"Content-Length", b"Transfer-Encoding", b"Upgrade", b"X-Forwarded-For", b"X-Forwarded-Host",
    b"X-Forwarded-Proto", b"Forwarded", b"TE", b"Expect", b"X-Room", b"Proxy-Authenticate", b"User-Agent",
)  # fmt: skip
_ANSWER_FIELDS: Final = (
    b"Connection", b"Content-Length", b"Transfer-Encoding", b"Upgrade", b"Set-Cookie", b"X-Room", b"Cache-Control", b"Server",
)  # fmt: skip
_START: Final = b"GET / HTTP/1.1\r\nHost: a\r\n"


def _request_places() -> list[Place]:
    shapes = [
        ("the method", b"G", b" / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("the path", b"GET /", b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("the query", b"GET /?room=", b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a URL as target", b"GET http://a", b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("the version", b"GET / HTTP/1.1", b"\r\nHost: a\r\n\r\n"),
        ("Host", b"GET / HTTP/1.1\r\nHost: a", b"\r\n\r\n"),
        ("the name of a field", _START + b"X", b": a\r\n\r\n"),
        ("a line", _START, b"\r\n\r\n"),
        ("the end", _START + b"Cookie: a=b\r\n\r\n", b""),
        *((field.decode(), _START + field + b": a", b"\r\n\r\n") for field in _FIELDS),
        *((f"{field.decode()} alone", _START + field + b":", b"\r\n\r\n") for field in _FIELDS),
    ]
    places = [Place(f"request, {shape[0]}", _READERS["cookie"], *shape[1:], (Refusal,)) for shape in shapes]
    for kind in ("header", "query"):
        places += [
            Place(f"request by {kind}, {shape[0]}", _READERS[kind], *shape[1:], (Refusal,))
            for shape in shapes
            if shape[0] in {"the query", "a line", "X-Room"}
        ]
    shapes.append(("Forwarded, a parameter", _START + b"Forwarded: for=a;", b"\r\n\r\n"))
    places += [
        Place(f"request by trusted, {shape[0]}", _READERS["trusted"], *shape[1:], (Refusal,)) for shape in shapes
    ]
    return places


def _answer_places() -> list[Place]:
    start = b"HTTP/1.1 200 OK\r\n"
    shapes = [
        ("the reason", b"HTTP/1.1 200 ", b"\r\n\r\n"),
        ("a line", start, b"\r\n\r\n"),
        ("the name of a field", start + b"X", b": a\r\n\r\n"),
        ("the body", start + b"Content-Length: 10\r\n\r\n", b""),
        *((field.decode(), start + field + b": a", b"\r\n\r\n") for field in _ANSWER_FIELDS),
        *((f"{field.decode()} alone", start + field + b":", b"\r\n\r\n") for field in _ANSWER_FIELDS),
    ]
    places = [Place(f"response, {shape[0]}", _responses, *shape[1:], (UpstreamFault,)) for shape in shapes]
    places += [Place(f"usual response, {shape[0]}", _usual_responses, *shape[1:]) for shape in shapes]
    places.append(Place("Cache-Control that is cut", lambda: without_caching, start + b"Cache-Control:", b"\r\n"))
    places.append(Place("answer to a health check", lambda: checks.STATUS.match, b"HTTP/1.1 2", b"\r\n"))
    return places


def _body_places() -> list[Place]:
    shapes = [
        ("the size of a chunk", b"1", b"\r\nx\r\n0\r\n\r\n"),
        ("an extension", b"1;", b"\r\nx\r\n0\r\n\r\n"),
        ("chunks", b"", b"0\r\n\r\n"),
        ("a trailer", b"0\r\nA:", b"\r\n\r\n"),
        ("trailers", b"0\r\n", b"\r\n"),
        ("data", b"ffff\r\n", b""),
    ]
    places = [Place(f"chunked body, {shape[0]}", _body, *shape[1:], (BodyError,)) for shape in shapes]
    places += [replace(place, size=13_000) for place in places]
    places += [Place(f"dripping body, {shape[0]}", _dripping, *shape[1:], (BodyError,)) for shape in shapes]
    return places


def _session_places() -> list[Place]:
    def reader(*, is_https: bool) -> Read:
        return lambda header: _SESSION_COOKIES.read([header], is_https=is_https)

    return [
        Place("session cookies", partial(reader, is_https=False), b"sessile=a", b"; a=b"),
        Place("session cookies over https", partial(reader, is_https=True), b"__Host-sessile=a", b"; a=b"),
    ]


PLACES: Final = [*_request_places(), *_answer_places(), *_body_places(), *_session_places()]
