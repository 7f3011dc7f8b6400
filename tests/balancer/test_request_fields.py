"""The judgement on a whole head's fields, apart from the walk that collects them."""

from __future__ import annotations

import pytest

from sessile.balancer.refusals import Refusal
from sessile.balancer.request_fields import Fields, added, judge_framing, origin_form
from sessile.balancer.request_head import Peer, RequestHead

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nZ: w\r\n\r\n"
START = HEAD.index(b"Host")


def test_slices_are_joined_again() -> None:
    """Nothing cut: the same head with what is added; a field cut: the head without it."""
    assert Fields(HEAD, START).joined(b"A: b\r\n\r\n") == HEAD[:-2] + b"A: b\r\n\r\n"
    fields = Fields(HEAD, START)
    assert fields.cut(HEAD.index(b"\nX")) == b" y"
    fields.line = b"GET /other HTTP/1.1"
    assert fields.joined(b"\r\n") == b"GET /other HTTP/1.1\r\nHost: a\r\nZ: w\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "form"),
    [
        (b"GET", b"/a", b"/a"),
        (b"OPTIONS", b"*", b"*"),
        (b"GET", b"HTTP://A.example:80/x?y", b"/x?y"),
        (b"GET", b"https://a.example:443", b"/"),
        (b"GET", b"http://a.example:8080/", None),
        (b"GET", b"http://b.example/", None),
        (b"GET", b"*", None),
        (b"GET", b"a.example:80", None),
    ],
)
def test_targets(method: bytes, target: bytes, form: bytes | None) -> None:
    """A path stays, a URL of this Host becomes its path, anything else is refused."""
    if form is None:
        with pytest.raises(Refusal):
            origin_form(method, target, b"a.example")
    else:
        assert origin_form(method, target, b"a.example") == form


def test_framing_is_one_or_nothing() -> None:
    """A length, chunks, or no body; both is a doubt."""
    fields, request = Fields(HEAD, START), RequestHead(b"POST")
    fields.length = 7
    judge_framing(fields, request)
    assert request.body == 7
    fields.chunked = True
    with pytest.raises(Refusal, match="both"):
        judge_framing(fields, request)


def test_what_is_added_for_a_trusted_peer_is_its_own_word() -> None:
    """Two contradicting schemes are nobody's word; the chain of two fields is one list."""
    fields = Fields(HEAD, START)
    fields.host = b"a"
    fields.forwarded = {b"for": [b"1.1.1.1", b"2.2.2.2"], b"proto": [b"https", b"http"]}
    lines = added(fields, RequestHead(b"GET"), Peer.of("10.0.0.1", is_trusted=True))
    assert (
        lines
        == b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\r\n"
    )
