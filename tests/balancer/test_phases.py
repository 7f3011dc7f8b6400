"""How long each wait may last."""

from __future__ import annotations

import pytest

from sessile.balancer.phases import BODY, HEAD, IDLE, LINGER, STREAM, TUNNEL, WAIT, is_dripping, wait_s
from sessile.balancer.settings import Limits, Timeouts

TIMEOUTS = Timeouts(body_s=1, response_s=2, stream_s=3, tunnel_s=4)


@pytest.mark.parametrize(
    ("phase", "is_clients_turn", "wait"),
    [
        (BODY, True, 1),
        (BODY, False, 2),
        (STREAM, True, 3),
        (TUNNEL, False, 4),
        *((phase, True, None) for phase in (IDLE, HEAD, WAIT, LINGER)),
    ],
)
def test_what_movement_buys(phase: int, is_clients_turn: bool, wait: float | None) -> None:  # noqa: FBT001 - a column
    """Bytes prolong a body, a stream and a tunnel; never a head, nor the wait for a response."""
    assert wait_s(phase, TIMEOUTS, is_clients_turn=is_clients_turn) == wait


def test_dripping() -> None:
    """Slow is slow only after the first while, and measured over the whole body."""
    limits = Limits(body_rate_bytes=100)
    assert not is_dripping(0, 0.9, TIMEOUTS, limits)
    assert is_dripping(199, 2.0, TIMEOUTS, limits) and not is_dripping(200, 2.0, TIMEOUTS, limits)


def test_their_order() -> None:
    """What the proxy compares: no request up to HEAD, a response from STREAM on."""
    assert IDLE < HEAD < BODY < WAIT < STREAM < TUNNEL < LINGER
