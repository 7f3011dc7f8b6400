"""What a client connection waits for, and how long it may.

Plain integers, because they are compared for every request; their order matters: up to HEAD no request is known, from
STREAM on a response has begun. Pure: timeouts and elapsed time are arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessile.balancer.settings import Limits, Timeouts

__all__ = ["BODY", "HEAD", "IDLE", "LINGER", "STREAM", "TUNNEL", "WAIT", "is_dripping", "wait_s"]

IDLE, HEAD, BODY, WAIT, STREAM, TUNNEL, LINGER = range(7)


def wait_s(phase: int, timeouts: Timeouts, *, is_clients_turn: bool) -> float | None:
    """How long to wait once something has moved; None where movement does not move the deadline.

    While a body arrives the client must not pause; once it is whole, or is not read because the server takes no more,
    the wait is the server's.
    """
    if phase == BODY:
        return timeouts.body_s if is_clients_turn else timeouts.response_s
    if phase == STREAM:
        return timeouts.stream_s
    return timeouts.tunnel_s if phase == TUNNEL else None


def is_dripping(received: int, elapsed_s: float, timeouts: Timeouts, limits: Limits) -> bool:
    """A request body comes slower than it must, after a first while in which it may."""
    return elapsed_s > timeouts.body_s and received < elapsed_s * limits.body_rate_bytes
