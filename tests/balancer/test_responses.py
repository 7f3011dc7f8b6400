"""Response heads: framing, what is cut, what is nonsense, and that the short cut judges as the long way does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.balancer.bodies import CHUNKED, UNTIL_CLOSE
from sessile.balancer.refusals import UpstreamFault
from sessile.balancer.responses import ResponseParser, without_caching


def head(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([line, *lines, b"", b""])


@pytest.mark.parametrize(
    ("data", "is_head", "body"),
    [
        (head(b"Content-Length: 5"), False, 5),
        (head(b"Content-Length: 5"), True, 0),
        (head(b"Transfer-Encoding: chunked"), False, CHUNKED),
        (head(b"Transfer-Encoding: chunked"), True, 0),
        (head(), False, UNTIL_CLOSE),
        (head(line=b"HTTP/1.1 204 No Content"), False, 0),
        (head(b"Content-Length: 5", line=b"HTTP/1.1 304 Not Modified"), False, 0),
        (head(b"Content-Length: 5", line=b"HTTP/1.1 404"), False, 5),
        (head(line=b"HTTP/1.1 100 Continue"), False, 0),
    ],
)
def test_where_a_body_ends(data: bytes, is_head: bool, body: int) -> None:  # noqa: FBT001 - a table's column
    """The body's length follows RFC 9112 section 6.3."""
    assert ResponseParser().parse(data, is_head=is_head).body == body


def test_what_is_cut() -> None:
    """Hop-by-hop and nominated fields go, and Content-Length of a 204; a head with none of them is untouched."""
    parser = ResponseParser(cookie=b"affinity")
    plain = parser.parse(head(b"Content-Length: 5", b"X: y"))
    assert plain.is_untouched and plain.lines == head(b"Content-Length: 5", b"X: y")[:-2]
    data = head(
        b"Connection: close, X-A", b"Keep-Alive: 5", b"X-A: 1", b"Content-Length: 5", b"Upgrade: h2c", b"X-B: 2"
    )
    response = parser.parse(data)
    assert response.lines == head(b"Content-Length: 5", b"X-B: 2")[:-2] and not response.keep_alive
    assert parser.parse(head(b"Content-Length: 0", line=b"HTTP/1.1 204 No")).lines == b"HTTP/1.1 204 No\r\n"
    cookies = parser.parse(head(b"Set-Cookie: affinity=x", b"Set-Cookie: a=1", b"Content-Length: 0"))
    assert cookies.lines == head(b"Set-Cookie: a=1", b"Content-Length: 0")[:-2]


def test_persistence() -> None:
    """1.1 stays unless it says close, 1.0 goes unless it says keep-alive, a body until close ends it."""
    parser = ResponseParser()
    assert parser.parse(head(b"Content-Length: 0")).keep_alive
    assert not parser.parse(head(b"Content-Length: 0", line=b"HTTP/1.0 200 OK")).keep_alive
    assert parser.parse(head(b"Content-Length: 0", b"Connection: keep-alive", line=b"HTTP/1.0 200 OK")).keep_alive
    assert not parser.parse(head()).keep_alive


def test_affinity_is_learned_from_a_field() -> None:
    """The value of the affinity field is read, and the field stays."""
    response = ResponseParser(header=b"Mcp-Session-Id").parse(head(b"MCP-Session-Id: abc ", b"Content-Length: 0"))
    assert response.learned == b"abc" and b"MCP-Session-Id: abc " in response.lines


@pytest.mark.parametrize(
    "data",
    [
        head(b"Content-Length: 5", b"Content-Length: 5"),
        head(b"Content-Length: 05"),
        head(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        head(b"Transfer-Encoding: gzip"),
        head(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK"),
        head(b"X : y"),
        head(b"X: a", b" b"),
        head(b"X: a\0"),
        head(line=b"HTTP/1.1 2000 OK"),
        head(line=b"HTTP/1.1 099 OK"),
        head(line=b"HTTP/3 200 OK"),
        head(*[b"X: y"] * 201),
        b"HTTP/1.1 200 OK\nX: y\r\n\r\n",
    ],
)
def test_nonsense(data: bytes) -> None:
    """A malformed or ambiguous head raises, so that nobody takes it for a response."""
    with pytest.raises(UpstreamFault):
        ResponseParser().parse(data)


def test_caching_is_taken_out() -> None:
    """Cache-Control, Expires and Pragma go in any case of letters; the rest stays."""
    lines = head(b"CACHE-control: public", b"A: b", b"expires: 0", b"Pragma: x")[:-2]
    assert without_caching(lines) == head(b"A: b")[:-2]
    assert without_caching(head(b"A: b")[:-2]) == head(b"A: b")[:-2]


names = st.sampled_from(
    [b"Content-Length", b"content-length", b"CONTENT-LENGTH", b"Connection", b"Transfer-Encoding", b"Set-Cookie", b"Server",
     b"Date", b"Content-Type", b"Upgrade", b"Keep-Alive", b"X-A", b"TE", b"Trailer", b"Proxy-Authenticate"]
)  # fmt: skip
values = st.sampled_from([b"0", b"5", b"05", b"chunked", b"close", b"x-a", b"affinity=1", b"b=1", b"", b"\xff", b"\0"])
heads = st.builds(
    lambda line, fields: head(*(name + b": " + value for name, value in fields), line=line),
    st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.0 200 OK", b"HTTP/1.1 304 Not", b"HTTP/1.1 206"]),
    st.lists(st.tuples(names, values), max_size=5),
)


@given(heads, st.booleans())
def test_the_short_cut_judges_as_the_long_way(data: bytes, is_head: bool) -> None:  # noqa: FBT001 - drawn
    """A head taken by the short cut means the same by the long way."""
    short, long = ResponseParser(cookie=b"affinity"), ResponseParser(cookie=b"affinity")
    long.usual = re.compile(rb"(?!)")
    assert _judged(short, data, is_head=is_head) == _judged(long, data, is_head=is_head)


def _judged(parser: ResponseParser, data: bytes, *, is_head: bool) -> object:
    try:
        response = parser.parse(data, is_head=is_head)
    except UpstreamFault:
        return None
    return {
        name: getattr(response, name)
        for name in ("status", "body", "keep_alive", "lines", "is_http_10", "is_untouched")
    }


def test_a_server_s_head_takes_the_short_way() -> None:
    """The short cut is taken on every supported Python."""
    head = b"HTTP/1.1 200 OK\r\nDate: now\r\nCache-Control: x\r\nContent-Type: a/b\r\nContent-Length: 5\r\nServer: s\r\n\r\n"
    assert ResponseParser(cookie=b"affinity").usual.fullmatch(head) is not None


@pytest.mark.parametrize("rest", [b" 200 OK", b" 404 ", b" 200", b" 103 Early Hints"])
def test_the_version_is_ours(rest: bytes) -> None:
    """A server's HTTP/1.0 ends with its hop (RFC 9110 section 6.2): HTTP/1.0 with chunks would be faulty."""
    old = ResponseParser().parse(head(b"X: y", line=b"HTTP/1.0" + rest))
    assert old.lines == head(b"X: y", line=b"HTTP/1.1" + rest)[:-2]
    assert old.is_http_10 and not old.keep_alive and not old.is_untouched


def test_too_many_fields_name_their_setting() -> None:
    """A response that is refused for its size says so, and what to set."""
    parser = ResponseParser(fields_max=20)
    assert parser.parse(head(*[b"X: y"] * 20)).lines.count(b"X: y") == 20
    with pytest.raises(UpstreamFault, match="more than 20") as caught:
        parser.parse(head(*[b"X: y"] * 21))
    assert caught.value.setting == "fields"
