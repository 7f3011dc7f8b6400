"""llhttp's word: exactly one head, whatever came before it."""

from __future__ import annotations

import pytest

from sessile.balancer.refusals import Refusal
from sessile.balancer.request_head import Grammar, Peer, RequestHead

ONE = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_one_head_after_another_passes() -> None:
    """The same parser judges head after head."""
    grammar = Grammar()
    for _ in range(3):
        grammar.demand_one_head(ONE)


@pytest.mark.parametrize("data", [ONE + ONE, ONE[:-2], b"", b"GET / HTTP/1.1\r\na b: c\r\n\r\n", b"\0"])
def test_anything_else_is_refused_and_does_no_harm_to_the_next(data: bytes) -> None:
    """Two heads, part of one, none, nonsense: 400, and the next head is judged for itself."""
    grammar = Grammar()
    with pytest.raises(Refusal) as refused:
        grammar.demand_one_head(data)
    assert refused.value.status == 400
    grammar.demand_one_head(ONE)


def test_a_peer_s_fields_are_made_once() -> None:
    """Who asks and how, as the next hop is told."""
    assert Peer.of("::1", is_https=True).ours == (
        b"X-Forwarded-For: ::1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: "
    )


def test_a_head_begins_as_the_usual_one() -> None:
    """What is not said is: HTTP/1.1, kept alive, no body, nobody's."""
    head = RequestHead(b"GET")
    assert (head.keep_alive, head.body, head.affinity, head.is_http_10, head.is_upgrade) == (True, 0, (), False, False)
