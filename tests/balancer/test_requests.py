"""Request heads: what is refused, what is rewritten, and that the short cut judges as the long way does."""

from __future__ import annotations

import h11
import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.balancer.bodies import CHUNKED
from sessile.balancer.refusals import Refusal
from sessile.balancer.request_head import Grammar, Peer, RequestHead
from sessile.balancer.requests import RequestParser
from sessile.balancer.usual import UsualHeads

PEER = Peer.of("192.0.2.7", here="192.0.2.1:8080")
OURS = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\r\n"
HERE = OURS.replace(b"Host: a", b"Host: 192.0.2.1:8080")


def parser() -> RequestParser:
    return RequestParser(("cookie", b"affinity"))


def parse(head: bytes, peer: Peer = PEER) -> RequestHead:
    return parser().parse(head, peer)


def head(*lines: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes | None = b"Host: a") -> bytes:
    return b"\r\n".join([line, *([host] if host is not None else []), *lines, b"", b""])


REFUSED = {
    "no Host": head(host=None),
    "no Host in 1.0, and no valid one in the target": head(host=None, line=b"GET http://a[b/ HTTP/1.0"),
    "two Hosts in 1.0": head(b"Host: a", line=b"GET / HTTP/1.0"),
    "two Hosts": head(b"Host: a"),
    "two Hosts apart": head(b"X: y", b"host: b"),
    "empty Host": head(host=b"Host:"),
    "Host with a path": head(host=b"Host: a/b"),
    "Host with user": head(host=b"Host: u@a"),
    "Host with a space": head(host=b"Host: a b"),
    "Host with a bad port": head(host=b"Host: a:http"),
    "HTTP/1.2": head(line=b"GET / HTTP/1.2"),
    "HTTP/2.0": head(line=b"GET / HTTP/2.0"),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "lower-case version": head(line=b"GET / http/1.1"),
    "two spaces": head(line=b"GET  / HTTP/1.1"),
    "tab for space": head(line=b"GET\t/ HTTP/1.1"),
    "space at the end of the line": head(line=b"GET / HTTP/1.1 "),
    "fragment": head(line=b"GET /a#b HTTP/1.1"),
    "non-ASCII target": head(line=b"GET /\xc3\xa9 HTTP/1.1"),
    "control in target": head(line=b"GET /\x01 HTTP/1.1"),
    "bare path": head(line=b"GET a HTTP/1.1"),
    "asterisk for GET": head(line=b"GET * HTTP/1.1"),
    "CONNECT": head(line=b"CONNECT a:80 HTTP/1.1"),
    "CONNECT with a path": head(line=b"CONNECT / HTTP/1.1"),
    "unknown method": head(line=b"FOO / HTTP/1.1"),
    "lower-case method": head(line=b"get / HTTP/1.1"),
    "absolute form of another host": head(line=b"GET http://b/ HTTP/1.1"),
    "absolute form with user": head(line=b"GET http://u@a/ HTTP/1.1"),
    "absolute form of another scheme": head(line=b"GET ftp://a/ HTTP/1.1"),
    "CL and TE": head(b"Content-Length: 5", b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1"),
    "TE and CL": head(b"Transfer-Encoding: chunked", b"Content-Length: 5", line=b"POST / HTTP/1.1"),
    "CL 0 and TE": head(b"Content-Length: 0", b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1"),
    "two TE": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1"),
    "TE xchunked": head(b"Transfer-Encoding: xchunked", line=b"POST / HTTP/1.1"),
    "TE list": head(b"Transfer-Encoding: gzip, chunked", line=b"POST / HTTP/1.1"),
    "TE empty element": head(b"Transfer-Encoding: , chunked", line=b"POST / HTTP/1.1"),
    "TE identity": head(b"Transfer-Encoding: identity", line=b"POST / HTTP/1.1"),
    "TE with vertical tab": head(b"Transfer-Encoding: \x0bchunked", line=b"POST / HTTP/1.1"),
    "TE quoted": head(b'Transfer-Encoding: "chunked"', line=b"POST / HTTP/1.1"),
    "TE in 1.0": head(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"),
    "two CL that differ": head(b"Content-Length: 5", b"Content-Length: 6", line=b"POST / HTTP/1.1"),
    "two CL that agree": head(b"Content-Length: 5", b"Content-Length: 5", line=b"POST / HTTP/1.1"),
    "CL list": head(b"Content-Length: 5, 5", line=b"POST / HTTP/1.1"),
    "CL +5": head(b"Content-Length: +5", line=b"POST / HTTP/1.1"),
    "CL -1": head(b"Content-Length: -1", line=b"POST / HTTP/1.1"),
    "CL 0x10": head(b"Content-Length: 0x10", line=b"POST / HTTP/1.1"),
    "CL 1_0": head(b"Content-Length: 1_0", line=b"POST / HTTP/1.1"),
    "CL 010": head(b"Content-Length: 010", line=b"POST / HTTP/1.1"),
    "CL empty": head(b"Content-Length:", line=b"POST / HTTP/1.1"),
    "CL too long": head(b"Content-Length: " + b"9" * 19, line=b"POST / HTTP/1.1"),
    "CL with NBSP": head(b"Content-Length: 5\xa0", line=b"POST / HTTP/1.1"),
    "Connection names Host": head(b"Connection: Host"),
    "Connection names Cookie": head(b"Connection: close, cookie"),
    "Connection names Content-Length": head(b"Connection: keep-alive,Content-Length", b"Content-Length: 0"),
    "Connection names Transfer-Encoding": head(b"Connection: transfer-encoding"),
    "Connection is no list of tokens": head(b"Connection: a b"),
    "name with _": head(b"X_Forwarded_For: 1"),
    "Content_Length": head(b"Content_Length: 5"),
    "obs-fold": head(b"X: a", b" b"),
    "obs-fold with tab": head(b"X: a", b"\tb"),
    "space before the first field": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "space before colon": head(b"X : a"),
    "TE with space before colon": head(b"Transfer-Encoding : chunked", line=b"POST / HTTP/1.1"),
    "no colon": head(b"X"),
    "empty name": head(b": x"),
    "NUL in a value": head(b"X: a\0b"),
    "control in a value": head(b"X: a\x1fb"),
    "DEL in a value": head(b"X: a\x7fb"),
    "non-ASCII name": head(b"X\xff: a"),
    "bare LF": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "bare CR": head(b"X: a\rY: b"),
    "bare LF after the line": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_doubtful_heads_are_refused(name: str) -> None:
    """Each class of doubt ends in 400 with a reason, and leaves the parser ready for the next head."""
    one = parser()
    with pytest.raises(Refusal) as caught:
        one.parse(REFUSED[name], PEER)
    assert caught.value.status == 400 and caught.value.reason
    assert one.parse(head(), PEER).forward


def test_two_heads_are_not_one() -> None:
    """Bytes that hold more than one head are refused, whatever the caller thought."""
    with pytest.raises(Refusal):
        parse(head() + head())


def test_limits() -> None:
    """A hundred fields pass, one more is 431 and names its setting; the request line has no limit but the head's."""
    assert parse(head(*[b"X: y"] * 99)).forward.count(b"X: y") == 99
    with pytest.raises(Refusal) as caught:
        parse(head(*[b"X: y"] * 100))
    assert (caught.value.status, caught.value.setting) == (431, "fields")
    for size in (7_000, 8_200, 60_000):
        assert parse(head(line=b"GET /" + b"y" * size + b" HTTP/1.1")).forward.count(b"y") == size


@pytest.mark.parametrize(
    ("given_head", "forward"),
    [
        (head(), head() [:-2] + OURS),
        (head(b"Connection: keep-alive", b"X: y"), head(b"X: y")[:-2] + OURS),
        (head(b"Cookie: a=1; affinity=t; b=2", b"X: y"), head(b"Cookie: a=1; b=2", b"X: y")[:-2] + OURS),
        (head(b"Cookie: a=1; affinity=t"), head(b"Cookie: a=1")[:-2] + OURS),
        (head(b"Cookie: affinity=t; a=1"), head(b"Cookie: a=1")[:-2] + OURS),
        (head(b"Cookie:affinity=t"), head()[:-2] + OURS),
        (head(b"Cookie: affinity=t; affinity=u"), head()[:-2] + OURS),
        (head(b"Cookie: affinity=t; a=1; affinity=u"), head(b"Cookie: a=1")[:-2] + OURS),
        (head(b"Cookie: affinity=t", b"Cookie: a=1"), head(b"Cookie: a=1")[:-2] + OURS),
        (head(b"Cookie: a=x:affinity=kept; b=2"), head(b"Cookie: a=x:affinity=kept; b=2")[:-2] + OURS),
        (head(b"Cookie: affinity=t; a=x:affinity=kept"), head(b"Cookie: a=x:affinity=kept")[:-2] + OURS),
        (head(b"Cookie: xaffinity=t; b=affinity=1"), head(b"Cookie: xaffinity=t; b=affinity=1")[:-2] + OURS),
        (head(b"TE: trailers", b"Trailer: x", b"Proxy-Authorization: b"), head()[:-2] + OURS),
        (head(b"X-Forwarded-For: 1", b"x-forwarded-port: 2", b"Forwarded: for=1"), head()[:-2] + OURS),
        (head(b"Connection: close, X-A", b"X-A: 1", b"x-a: 2", b"X-B: 3"), head(b"X-B: 3")[:-2] + OURS),
        (head(line=b"GET http://A:80/b?c HTTP/1.1"), head(line=b"GET /b?c HTTP/1.1")[:-2] + OURS),
        (head(line=b"OPTIONS http://a HTTP/1.1"), head(line=b"OPTIONS * HTTP/1.1")[:-2] + OURS),
        (head(line=b"GET http://a?q HTTP/1.1"), head(line=b"GET /?q HTTP/1.1")[:-2] + OURS),
        (head(line=b"GET /x HTTP/1.0"), head(line=b"GET /x HTTP/1.1")[:-2] + OURS),
        (head(b"X: y", line=b"GET /x HTTP/1.0", host=None), head(b"X: y", b"Host: 192.0.2.1:8080", line=b"GET /x HTTP/1.1", host=None)[:-2] + HERE),
        (head(line=b"OPTIONS * HTTP/1.0", host=None), head(b"Host: 192.0.2.1:8080", line=b"OPTIONS * HTTP/1.1", host=None)[:-2] + HERE),
        (head(line=b"GET http://a/x HTTP/1.0", host=None), head(line=b"GET /x HTTP/1.1")[:-2] + OURS),
        (
            head(b"transfer-encoding:\tCHUNKED ", line=b"POST / HTTP/1.1"),
            head(line=b"POST / HTTP/1.1")[:-2] + b"Transfer-Encoding: chunked\r\n" + OURS,
        ),
    ],
)  # fmt: skip
def test_rewriting(given_head: bytes, forward: bytes) -> None:
    """What goes on is the head without what must not pass and with ours last."""
    assert parse(given_head).forward == forward


def test_what_the_proxy_learns() -> None:
    """Body, persistence, upgrade and affinity are read as RFC 9112 says."""
    assert parse(head(b"Content-Length: 12", line=b"POST / HTTP/1.1")).body == 12
    assert parse(head(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1")).body == CHUNKED
    assert parse(head()).keep_alive and not parse(head(b"Connection: Close")).keep_alive
    old = parse(head(line=b"GET / HTTP/1.0"))
    assert old.is_http_10 and not old.keep_alive
    assert parse(head(b"Connection: keep-alive", line=b"GET / HTTP/1.0")).keep_alive
    assert parse(head(b"Cookie: affinity=t; x=1; affinity=u")).affinity == (b"t", b"u")
    upgrade = head(b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket", b"Sec-WebSocket-Key: x")
    assert parse(upgrade).is_upgrade
    assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in parse(upgrade).forward
    assert not parse(upgrade.replace(b"GET", b"POST")).is_upgrade


def test_a_handshake_may_say_that_it_has_no_body() -> None:
    """`Content-Length: 0` is no body (RFC 9110 section 8.6); the length itself does not go on. A true body is no handshake."""
    fields = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x")
    request = parse(head(*fields, b"Content-Length: 0"))
    assert request.is_upgrade and request.body == 0 and request.keep_alive
    assert request.forward == parse(head(*fields)).forward
    assert not parse(head(*fields, b"Content-Length: 1")).is_upgrade
    assert not parse(head(*fields, b"Transfer-Encoding: chunked")).is_upgrade


@pytest.mark.parametrize(
    ("field", "is_overruled"),
    [
        (b"X-Forwarded-Proto: https", True),
        (b"x-forwarded-proto:HTTPS", True),
        (b"X-Forwarded-Proto: https, http", True),
        (b"X-Forwarded-Proto: wss", True),
        (b"Forwarded: for=1.2.3.4;proto=https", True),
        (b'Forwarded: Proto="https"', True),
        (b"X-Forwarded-Proto: http", False),
        (b"Forwarded: for=1.2.3.4;proto=http", False),
        (b"X-Forwarded-For: https", False),
        (b"X-A: https", False),
    ],
)
def test_a_stranger_s_word_for_https_is_noticed(*, field: bytes, is_overruled: bool) -> None:
    """It does not count, and somebody should know; a trusted peer's counts, and where all is https it changes nothing."""
    request = parse(head(field))
    assert request.is_overruled is is_overruled and not request.is_https
    assert request.forward.endswith(OURS)
    for peer in (Peer.of("192.0.2.7", is_trusted=True), Peer.of("192.0.2.7", is_https=True)):
        assert not parse(head(field), peer).is_overruled


def test_cookies_of_balancers_like_ours() -> None:
    """They are read where ours is not, whichever way the head takes, and go on; ours is cut as ever."""
    one = RequestParser(("cookie", b"affinity-1"), others=b"affinity-")
    request = one.parse(head(b"Cookie: affinity-2=t; a=1; affinity-3=v; xaffinity-4=w"), PEER)
    assert (request.affinity, request.elsewhere) == ((), (b"t", b"v"))
    assert request.forward == head(b"Cookie: affinity-2=t; a=1; affinity-3=v; xaffinity-4=w")[:-2] + OURS
    both = one.parse(head(b"Cookie: affinity-2=t; affinity-1=u"), PEER)
    assert both.affinity == (b"u",) and both.forward == head(b"Cookie: affinity-2=t")[:-2] + OURS
    assert parse(head(b"Cookie: affinity-2=t")).elsewhere == ()


def test_affinity_by_header_and_query() -> None:
    """The value is read and stays in the head; the parameter's name must match whole."""
    by_header = RequestParser(("header", b"Mcp-Session-Id"))
    request = by_header.parse(head(b"mcp-session-id:  abc "), PEER)
    assert request.affinity == (b"abc",) and b"mcp-session-id:  abc " in request.forward
    by_query = RequestParser(("query", b"room"))
    assert by_query.parse(head(line=b"GET /?classroom=1&room=42&x HTTP/1.1"), PEER).affinity == (b"42",)
    assert by_query.parse(head(line=b"GET /room=1 HTTP/1.1"), PEER).affinity == ()


def test_a_trusted_peer_speaks_for_others() -> None:
    """Its chain is continued, scheme and host kept if they are well-formed; nonsense is replaced."""
    trusted = Peer.of("10.0.0.1", is_trusted=True)
    fields = (b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: shop.example")
    request = parse(head(*fields), trusted)
    assert request.is_https
    assert request.forward.endswith(
        b"X-Forwarded-For: 1.2.3.4, 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n\r\n"
    )
    odd = parse(head(b"X-Forwarded-For: <x>", b"X-Forwarded-Proto: gopher", b"X-Forwarded-Host: a b"), trusted)
    assert odd.forward.endswith(b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\r\n")


@pytest.mark.parametrize(
    ("fields", "is_https"),
    [
        ((b"X-Forwarded-Proto: https",), True),
        ((b"X-Forwarded-Proto: HTTPS",), True),
        ((b"X-Forwarded-Proto: https, http",), True),
        ((b"X-Forwarded-Proto: https,https",), True),
        ((b"X-Forwarded-Proto: http, https",), False),
        ((b"X-Forwarded-Proto: wss",), True),
        ((b"X-Forwarded-Proto: ws",), False),
        ((b"X-Forwarded-Proto: httpsx",), False),
        ((b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: HTTPS"), True),
        ((b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: http"), False),
        ((b"Forwarded: for=1.2.3.4;proto=https",), True),
        ((b'Forwarded: For="[2001:db8::1]:80"; Proto="HTTPS"; by=x',), True),
        ((b"Forwarded: proto=https, for=1.2.3.4;proto=http",), True),
        ((b"Forwarded: proto=http, for=1.2.3.4;proto=https",), False),
        ((b"Forwarded: for=1.2.3.4, proto=https",), False),
        ((b"Forwarded: proto=https", b"Forwarded: proto=http"), True),
        ((b'Forwarded: for="x;proto=https"',), False),
        ((b'Forwarded: for="\\";proto=https',), False),
        ((b"Forwarded: noproto=https",), False),
        ((b"Forwarded: ;;proto=https",), True),
        ((b"Forwarded: proto=",), False),
        ((b"Forwarded:",), False),
        ((b"X-Forwarded-Proto:", b"Forwarded: proto=https"), True),
        ((b"X-Forwarded-Proto: http", b"Forwarded: proto=https"), False),
    ],
)
def test_a_trusted_peer_s_word_for_https_counts(*, fields: tuple[bytes, ...], is_https: bool) -> None:
    """However it is written; of a list the first, of two kinds of field X-Forwarded-Proto."""
    request = parse(head(*fields), Peer.of("192.0.2.7", is_trusted=True))
    assert request.is_https is is_https and not request.is_overruled
    assert (b"X-Forwarded-Proto: %b\r\n" % (b"https" if is_https else b"http")) in request.forward
    assert request.forward.lower().count(b"forwarded") == 3


# --- laws

names = st.sampled_from(
    [b"Host", b"Connection", b"Cookie", b"cookie", b"Content-Length", b"Transfer-Encoding", b"Upgrade", b"TE", b"X-A",
     b"Accept", b"User-Agent", b"X-Forwarded-For", b"upgrade-insecure-requests", b"Content-Type", b"Forwarded", b"a_b", b" x"]
)  # fmt: skip
values = st.sampled_from(
    [b"a", b"keep-alive", b"close", b"Keep-Alive", b"affinity=t", b"x=1; affinity=t; y=2", b"x=1; affinity=t", b"0", b"5",
     b"chunked", b"websocket", b"upgrade", b"", b"x_y", b"\xff", b"a\0b", b"x-a", b"a:1", b"affinity=", b"affinity=t;affinity=u"]
)  # fmt: skip
lines = st.sampled_from(
    [b"GET / HTTP/1.1", b"GET /a_b?x HTTP/1.1", b"POST / HTTP/1.1", b"GET / HTTP/1.0", b"OPTIONS * HTTP/1.1"]
)
heads = st.builds(
    lambda line, fields: b"\r\n".join([line, *(name + b": " + value for name, value in fields), b"", b""]),
    lines,
    st.lists(st.tuples(names, values), max_size=6).map(lambda fields: [(b"Host", b"a"), *fields]) | st.lists(st.tuples(names, values), max_size=6),
)  # fmt: skip


def judged(one: RequestParser, data: bytes) -> object:
    try:
        request = one.parse(data, PEER)
    except Refusal as refusal:
        return refusal.status
    return {
        name: getattr(request, name)
        for name in ("method", "keep_alive", "body", "affinity", "is_upgrade", "is_http_10")
    }


@given(heads)
def test_the_short_cut_judges_as_the_long_way(data: bytes) -> None:
    """A head taken by the short cut is accepted by the long way too, with the same meaning and the same fields."""
    short, long = parser(), parser()
    long.usual = UsualHeads(b"", -3, Grammar())
    assert judged(short, data) == judged(long, data)
    if isinstance(judged(short, data), dict):
        assert _fields(short.parse(data, PEER).forward) == _fields(long.parse(data, PEER).forward)


@given(heads)
def test_what_goes_on_is_read_alike_by_others(data: bytes) -> None:
    """Two other parsers agree with each other and with us on every head that passes."""
    try:
        request = parse(data)
    except Refusal:
        return
    body = b"x" * request.body if request.body > 0 else b"0\r\n\r\n" if request.body == CHUNKED else b""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(request.forward + body)
    event = connection.next_event()
    assert isinstance(event, h11.Request) and event.method == request.method
    seen: list[tuple[bytes, bytes]] = []

    class Names:
        def on_header(self, name: bytes, value: bytes) -> None:
            seen.append((name.lower(), value.strip(b" \t")))

    with_llhttp = httptools.HttpRequestParser(Names())
    if not request.is_upgrade:
        with_llhttp.feed_data(request.forward)
        assert seen == [(name, value) for name, value in event.headers]
    listed = [name for name, _ in event.headers]
    assert listed.count(b"host") == 1 and listed[-3:] == [b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"]
    assert not any(b"_" in name or name in {b"te", b"keep-alive", b"forwarded"} for name in listed)


@given(st.binary(max_size=300))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    """Whatever the bytes: a head or a Refusal."""
    judged(parser(), data + b"\r\n\r\n")


def _fields(forward: bytes) -> list[bytes]:
    return sorted(line.replace(b" ", b"") for line in forward.split(b"\r\n"))


def test_a_browser_s_head_takes_the_short_way() -> None:
    """The short cut is taken on every supported Python, with and without Connection and Cookie."""
    fields = [b"Accept: */*", b"Cache-Control: no-cache", b"Pragma: no-cache", b"Upgrade-Insecure-Requests: 1"]
    parser = RequestParser(("cookie", b"affinity"))
    for more in ([], [b"Connection: keep-alive"], [b"Cookie: a=b; affinity=x"]):
        head = b"\r\n".join([b"GET /a?b=c HTTP/1.1", b"Host: a.example", *fields, *more, *fields, b"", b""])
        assert parser.usual.read(head, PEER) is not None, more
