"""The short way: what it takes, what it leaves to the long way. That both judge alike is held in test_requests.py."""

from __future__ import annotations

import pytest

from sessile.balancer.refusals import Refusal
from sessile.balancer.request_head import Grammar, Peer, RequestHead
from sessile.balancer.usual import UsualHeads

PEER = Peer.of("10.0.0.1")
MORE = [
    b"Accept: */*",
    b"Cache-Control: no-cache",
    b"Pragma: no-cache",
    b"Upgrade-Insecure-Requests: 1",
    b"Priority: u=0",
]


def head(*fields: bytes, line: bytes = b"GET /a_b?c=d HTTP/1.1", host: bytes = b"Host: a.example") -> bytes:
    return b"\r\n".join([line, host, *fields, b"", b""])


def read(data: bytes, mark: bytes = b"affinity=", *, fields_max: int = 100) -> RequestHead | None:
    return UsualHeads(mark, fields_max, Grammar()).read(data, PEER)


@pytest.mark.parametrize("connection", [[], [b"Connection: keep-alive"]])
@pytest.mark.parametrize(
    "cookie", [[], [b"Cookie: a=b"], [b"Cookie: a=b; affinity=x"], [b"Cookie: a=b; affinity=x; c=d"]]
)
@pytest.mark.parametrize("last", [[], MORE])
def test_what_browsers_send_takes_the_short_way(
    connection: list[bytes], cookie: list[bytes], last: list[bytes]
) -> None:
    """With and without Connection and Cookie, wherever they stand among the others: ours is cut, theirs goes on."""
    request = read(head(*connection, *MORE, *cookie, *last))
    assert request is not None
    ours = [b"X-Forwarded-For: 10.0.0.1", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: a.example"]
    kept = [field.replace(b"; affinity=x", b"") for field in cookie]
    assert request.forward == head(*MORE, *kept, *last, *ours)
    assert request.affinity == ((b"x",) if cookie and b"affinity" in cookie[0] else ())


@pytest.mark.parametrize(
    "field",
    [
        b"connection: keep-alive", b"Connection: close", b"Connection: keep-alive, x", b"Host: b", b"Content-Length: 0",
        b"transfer-encoding: chunked", b"Upgrade: websocket", b"TE: trailers", b"X-Forwarded-For: 1.2.3.4",
        b"x-forwarded-host: b", b"Forwarded: for=b", b"Keep-Alive: 5", b"Proxy-Connection: close", b"Trailer: a",
        b"HTTP2-Settings: a", b"a_b: c", b"User_Agent: c", b"Cookie: affinity=x", b"Cookie: a=b;affinity=x",
        b"Cookie: a=b; affinity=x; affinity=y", b"Cookie: a\r\nCookie: b",
    ],
)  # fmt: skip
def test_what_matters_takes_the_long_way(field: bytes) -> None:
    """A field that a proxy must look at, wherever it stands, and a name with `_`."""
    assert read(head(field, *MORE)) is None
    assert read(head(*MORE, field)) is None
    assert read(head(b"Cookie: a=b", *MORE, field)) is None


def test_underscores_in_values_are_innocent() -> None:
    """Only a name with `_` is refused; browsers have some in their values."""
    agent = b"User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) x86_64"
    assert read(head(agent, b"Referer: http://a_b:80/_", b"Cookie: _ga=1; b_c=2", b"DNT: _")) is not None
    assert read(head(agent, b"Cookie: _ga=1", b"d_nt: 1")) is None


@pytest.mark.parametrize(
    "data",
    [
        head(line=b"CONNECT /a HTTP/1.1"), head(line=b"GET http://a/ HTTP/1.1"), head(line=b"GET / HTTP/1.0"),
        head(host=b"Host: a b"), head(host=b"Host: a:123456"), head(host=b"Accept: a"), head() + b"x", head() + head(),
        head()[:-2], head() + b"\r\n", b"",
    ],
)  # fmt: skip
def test_other_heads_are_left_to_the_long_way(data: bytes) -> None:
    """Other request lines, a Host that is none, a head that is not whole, and whatever follows a head."""
    assert read(data) is None


def test_fields_are_counted() -> None:
    """As many as the limit allows, and none more."""
    assert read(head(*[b"a: b"] * 9), fields_max=10) is not None
    assert read(head(*[b"a: b"] * 10), fields_max=10) is None


def test_no_cookie_of_ours_leaves_every_cookie_in() -> None:
    """Without affinity by cookie nothing is cut out of it."""
    request = read(head(b"Cookie: a=b; affinity=x"), mark=b"")
    assert request is not None and b"a=b; affinity=x\r\n" in request.forward and not request.affinity


def test_llhttp_has_the_last_word() -> None:
    """What looks usual and is malformed is refused."""
    with pytest.raises(Refusal):
        read(head(b"Accept: a\0b"))


def test_a_cookie_of_a_balancer_like_ours_is_not_usual() -> None:
    """It may say where a user without ours belongs, so the long way looks at it; beside ours it says nothing."""
    usual = UsualHeads(b"affinity-1=", 100, Grammar(), b"affinity-")
    assert usual.read(head(b"Cookie: a=b; affinity-2=x"), PEER) is None
    assert usual.read(head(b"Cookie: affinity-2=x; affinity-1=x"), PEER) is not None
    assert usual.read(head(b"Cookie: a=b"), PEER) is not None
