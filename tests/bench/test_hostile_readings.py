"""The readers that the judge trusts: each against bytes whose meaning is known, and all against each other."""

from __future__ import annotations

import pytest

from bench.hostile.grammar import End, read_requests
from bench.hostile.readings import READERS, disagreement, read_with_h11, read_with_httptools

HOST = b"Host: a.example\r\n"
GET = b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
AGREED = {
    "one": (GET, 1, End.BOUNDARY),
    "two": (GET + GET, 2, End.BOUNDARY),
    "half a head": (GET + GET[:-2], 1, End.INSIDE),
    "length": (b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello" + GET, 2, End.BOUNDARY),
    "short of its length": (b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 6\r\n\r\nhello", 0, End.INSIDE),
    "chunks": (CHUNKED + b"5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\n" + GET, 2, End.BOUNDARY),
    "trailers": (CHUNKED + b"0\r\nX: y\r\n\r\n" + GET, 2, End.BOUNDARY),
    "half a chunk": (CHUNKED + b"5\r\nhel", 0, End.INSIDE),
    "close": (GET[:-2] + b"Connection: close\r\n\r\n", 1, End.CLOSED),
    "HTTP/1.0": (b"GET /x HTTP/1.0\r\n" + HOST + b"\r\n", 1, End.CLOSED),
    "upgrade refused": (GET[:-2] + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n" + GET, 2, End.BOUNDARY),
    "obs-text": (GET[:-2] + b"X: \x85\xa0y\xff\r\n\r\n", 1, End.BOUNDARY),
    "nothing": (b"", 0, End.BOUNDARY),
}
TOLD_APART = {
    "NUL in a value": GET[:-2] + b"X: a\0b\r\n\r\n",
    "leading zero": b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 05\r\n\r\nhello",
    "both framings": CHUNKED.replace(b"Transfer", b"Content-Length: 5\r\nTransfer") + b"0\r\n\r\n",
    "bare LF": GET.replace(b"\r\n", b"\n") + b"\r\n\r\n",
    "fold": GET[:-2] + b"X: a\r\n b\r\n\r\n",
    "chunk without CRLF": CHUNKED + b"5\r\nhelloX\r\n0\r\n\r\n",
    "empty line first": b"\r\n" + GET,
    "space in the target": GET.replace(b"/x", b"/x y"),
    "two lengths": b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("name", AGREED)
def test_all_readers_read_the_same_from_what_is_clear(name: str) -> None:
    """What RFC 9112 leaves no doubt about, all three read alike."""
    data, count, end = AGREED[name]
    for reader in READERS.values():
        reading = reader(data)
        assert (len(reading.requests), reading.end) == (count, end)
    assert disagreement(data) == ""


@pytest.mark.parametrize("name", TOLD_APART)
def test_what_is_not_clear_is_never_called_agreed(name: str) -> None:
    """Bytes that some server reads otherwise than another are told, whichever of the readers it is."""
    assert disagreement(TOLD_APART[name])


def test_a_body_is_what_was_sent() -> None:
    """The three give the body the same bytes, whatever the framing."""
    data = CHUNKED + b"5\r\nhello\r\n2\r\n\r\n\r\n0\r\n\r\n"
    assert {reader(data).requests[0].body for reader in READERS.values()} == {b"hello\r\n"}


def test_readers_stop_at_the_first_fault() -> None:
    """What stands before a fault is told, what stands behind it never is."""
    data = GET + b"rubbish\r\n\r\n" + GET
    for reader in (read_requests, read_with_h11, read_with_httptools):
        assert (len(reader(data).requests), reader(data).end) == (1, End.FAULT)


def test_a_head_is_begun_only_when_its_framing_is_good() -> None:
    """A good head with a bad body is begun; a head whose framing is bad is not."""
    assert read_requests(CHUNKED + b"x\r\n").begun is not None
    assert read_requests(TOLD_APART["both framings"]).begun is None
