"""What the balancer itself answers when it cannot or must not pass a request on.

A `Refusal` is raised by the parsers and turned into bytes at the border. Every own answer is short plain text, is not
to be stored, and closes the connection: after a head that was refused nobody can say where the next one begins
(RFC 9112 section 6.3).
"""

from __future__ import annotations

from typing import Final

__all__ = ["CONTINUE", "PHRASES", "Refusal", "UpstreamFault", "answer"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""To a client that waits for it before it sends a body that is collected here (RFC 9110 section 10.1.1)."""
PHRASES: Final = {
    400: "Bad Request",
    408: "Request Timeout",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class Refusal(Exception):
    """A request that is not passed on: the status to answer with and a reason a person understands.

    `setting` names the limit it went beyond, for whoever may set it higher.
    """

    __slots__ = ("reason", "setting", "status")

    def __init__(self, status: int, reason: str, setting: str = "") -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.setting = setting


class UpstreamFault(Exception):
    """A server answered with something that is not HTTP/1.1 as we accept it; `setting` as with Refusal."""

    __slots__ = ("reason", "setting")

    def __init__(self, reason: str, setting: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.setting = setting


def answer(status: int, reason: str, *, is_head: bool = False) -> bytes:
    """The whole response; for a HEAD request the same head with no body."""
    body = f"{status} {PHRASES[status]}: {reason}\n".encode("ascii", "replace")
    head = (
        f"HTTP/1.1 {status} {PHRASES[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode("ascii")
    return head if is_head else head + body
