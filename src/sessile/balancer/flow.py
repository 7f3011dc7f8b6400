"""When a client connection is read, and until when it is waited for.

The part of a client connection that knows nothing of requests: reasons to pause reading, which add up, and the deadline
of what is waited for, which moves when something moves. `client.py` says what happens; this says how long it may take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessile.balancer.phases import BODY, IDLE, is_dripping, wait_s

if TYPE_CHECKING:
    import asyncio

    from sessile.balancer.request_body import RequestBody
    from sessile.balancer.worker import Worker

__all__ = [
    "ASIDE_BYTES_MAX",
    "FOR_CATCHING_UP",
    "FOR_DIAL",
    "FOR_PIPELINE",
    "FOR_TURN",
    "FOR_UPSTREAM",
    "SHARE_BYTES",
    "Flow",
]

ASIDE_BYTES_MAX: Final = 16 * 1024
"""A longer piece is part of a stream: it is looked at as soon as it is read."""
SHARE_BYTES: Final = 128 * 1024
"""A connection that has read as much in a turn is not read again before the next."""
FOR_UPSTREAM, FOR_PIPELINE, FOR_DIAL, FOR_TURN, FOR_CATCHING_UP = 1, 2, 4, 8, 16
"""Why reading from a client may be paused; it resumes when no reason is left."""


class Flow:
    """Pausing and deadlines of one client connection; its phase is set from outside."""

    __slots__ = ("_body", "_held", "_received", "_since", "_worker", "deadline", "phase", "transport")

    transport: asyncio.Transport

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.phase = IDLE
        self.deadline = 0.0
        self._body: RequestBody | None = None
        """The body of the request under way; None when it has none."""
        self._received = 0
        self._since = 0.0
        self._held = 0

    def hold_for_upstream(self) -> None:
        self._hold(FOR_UPSTREAM)
        self._touch()

    def release_for_upstream(self) -> None:
        self._release(FOR_UPSTREAM)
        self._touch()

    def _hold(self, reason: int) -> None:
        if not self._held and not self.transport.is_closing():
            self.transport.pause_reading()
        self._held |= reason

    def _release(self, reasons: int) -> None:
        if self._held:
            self._held &= ~reasons
            if not self._held and not self.transport.is_closing():
                self.transport.resume_reading()

    def _touch(self) -> None:
        """Something moved: the deadline of what is waited for now begins anew."""
        wait = wait_s(self.phase, self._worker.settings.timeouts, is_clients_turn=self._is_clients_turn)
        if wait is not None:
            self.deadline = self._worker.now + wait

    @property
    def _is_body_due(self) -> bool:
        """More of the request's body is to come."""
        return self._body is not None and not self._body.is_whole

    @property
    def _is_clients_turn(self) -> bool:
        """More of the request is to come, and we would read it."""
        return self._is_body_due and not self._held

    def is_overdue(self, now: float) -> bool:
        """The deadline is past, or the request's body drips. What came fast once is no credit for later: a new while begins."""
        if now >= self.deadline:
            return True
        if self.phase != BODY or not self._is_clients_turn:
            return False
        settings, elapsed = self._worker.settings, now - self._since
        if is_dripping(self._received, elapsed, settings.timeouts, settings.limits):
            return True
        if elapsed > settings.timeouts.body_s:
            self._received, self._since = 0, now
        return False
