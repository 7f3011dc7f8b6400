"""What a browser is told when its session could not be kept or told, for every adapter alike.

A handler that raises, or whose changes cannot be kept, must not be answered as if all were well: 409 says that the
session ended or got a new id meanwhile and the request may be sent again with the cookies of now; 503 that this server
cannot tell or keep sessions at this moment (RFC 9110 §15.5.10, §15.6.4). Neither touches an id cookie.

A mistake in the settings that comes to light only while requests are served is a 503 for each of them, and one line in the
log for all of them: a traceback for every request would hide the line that names the setting.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sessile.errors import SessionConflict, SessionError, SessionLimit, SessionUnavailable, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ANSWERED", "Answer", "answer_to", "log_once", "warn_of_nesting"]

ANSWERED: Final = (SessionError, SettingsError)
"""What an adapter catches to ask `answer_to`."""
_LOG: Final = logging.getLogger("sessile")
LOGGED_MAX: Final = 100
"""At most this many different mistakes are logged by one process."""
_NESTED: Final = (
    "one SessionMiddleware is inside another one with other settings: the app sees the sessions of the inner one only; leave "
    "one out, or give both the same engine: SessionMiddleware(app, engine=...)"
)
_logged: Final[set[str]] = set()


@dataclass(frozen=True, slots=True)
class Answer:
    """A response in place of the app's own."""

    status: int
    reason: str
    body: bytes
    retry_after_s: int = 0

    def headers(self, cookies: Iterable[bytes] = ()) -> list[tuple[bytes, bytes]]:
        """The fields of its head, with these values of Set-Cookie."""
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(self.body)),
            (b"cache-control", b"no-store"),
            (b"vary", b"Cookie"),
        ]
        if self.retry_after_s:
            headers.append((b"retry-after", b"%d" % self.retry_after_s))
        headers.extend([(b"set-cookie", cookie) for cookie in cookies])
        return headers


_CONFLICT = Answer(409, "Conflict", b"The session was ended or renewed meanwhile; nothing was stored. Try again.\n")
_UNAVAILABLE = Answer(503, "Service Unavailable", b"Sessions are not available right now. Try again.\n", 1)
_MISTAKEN = Answer(503, "Service Unavailable", b"Sessions are not available: see the log of this server.\n")


def answer_to(error: SessionError | SettingsError) -> Answer | None:
    """The answer to give; None for a mistake of the application, which its framework should show as such.

    A mistake in the settings is also logged, the first time.
    """
    if isinstance(error, SettingsError):
        log_once(error)
        return _MISTAKEN
    if isinstance(error, SessionConflict):
        return _CONFLICT
    if isinstance(error, SessionLimit | SessionUnavailable):
        return _UNAVAILABLE
    return None


def log_once(error: Exception) -> None:
    """Log what is wrong as one line, unless this process has logged the same line."""
    message = str(error)
    if message not in _logged and len(_logged) < LOGGED_MAX:
        _logged.add(message)
        _LOG.error(message)


def warn_of_nesting() -> None:
    """Say once that a middleware opens a session inside a middleware with another engine."""
    if _NESTED not in _logged:
        _logged.add(_NESTED)
        _LOG.warning(_NESTED)
