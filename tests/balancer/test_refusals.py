"""The balancer's own answers."""

from __future__ import annotations

import h11
import pytest

from sessile.balancer.refusals import PHRASES, Refusal, UpstreamFault, answer


@pytest.mark.parametrize("status", PHRASES)
def test_an_answer_is_a_whole_response(status: int) -> None:
    """Each own answer is a response that an independent parser reads to its end, and it closes."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(answer(status, "because"))
    head, body = connection.next_event(), connection.next_event()
    assert isinstance(head, h11.Response) and head.status_code == status and (b"connection", b"close") in head.headers
    assert isinstance(body, h11.Data) and b"because" in body.data
    assert isinstance(connection.next_event(), h11.EndOfMessage)


def test_head_has_no_body() -> None:
    """For HEAD the same head, and nothing after it."""
    assert answer(502, "x", is_head=True).endswith(b"\r\n\r\n")
    assert answer(502, "x").startswith(answer(502, "x", is_head=True))


def test_the_reason_is_kept() -> None:
    """Both kinds of refusal say why."""
    assert str(Refusal(400, "why").reason) == "why" and UpstreamFault("why").reason == "why"
