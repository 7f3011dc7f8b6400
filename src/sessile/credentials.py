"""Reads a visitor from a request's cookies, and makes the cookies for a record.

Combines the cookie policy, which knows names and attributes, with the keyring, which knows MACs. A cookie that no secret of
this server has signed is ignored and counted, never adopted and never deleted.
"""

from __future__ import annotations

import logging
import re
import threading
from typing import TYPE_CHECKING, Final

from sessile.cookies import CookiePolicy, Presented
from sessile.errors import SettingsError
from sessile.forks import call_after_fork
from sessile.record import ENDED, LIVE, REPLACED, ROTATED, Stamp
from sessile.token import ID_BYTES, Identity, Keyring, Visitor, key_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable

    from sessile.record import Record
    from sessile.settings import Settings
    from sessile.token import SessionKey

__all__ = ["Credentials"]

_LOG: Final = logging.getLogger("sessile")
SECRET_BYTES: Final = 32
DRAWS_MAX: Final = 256
"""At most this many ids are drawn until one has a wanted key."""
_LOOPBACK: Final = re.compile(r"127(\.\d{1,3}){3}|::1|localhost|testserver")
"""Addresses that only this machine reaches; Starlette's test client calls its server `testserver`."""
_RANKS: Final = {LIVE: 0, ROTATED: 1, None: 2, ENDED: 3, REPLACED: 3}
_INFERRED_HTTPS: Final = (
    "a __Host- cookie arrived over http: TLS ends in front of this server, so cookies are set for https; set "
    "secure=true, or let the proxy say X-Forwarded-Proto to a server that trusts it"
)
OVERRULED_HTTPS: Final = (
    "a request that came over http says, by X-Forwarded-Proto or Forwarded, that its browser speaks https, and this server "
    "does not believe it: session cookies go without Secure and __Host-, and samesite=none becomes Lax; if a proxy of yours "
    "ends TLS, set secure=true (SESSILE_SECURE=true), or let the server trust the proxy (--forwarded-allow-ips of uvicorn "
    "and gunicorn)"
)
_DRAWN: Final = (
    "secret is not set: this process drew one, which it forgets when it ends; run `sessile keygen` once, and set what it prints "
    "as SESSILE_SECRET in the environment of the server, or give secret=... to its middleware"
)
_UNKNOWN_HERE: Final = (
    "a session of this service is unknown to this process: another process wrote it (an earlier run or a sibling), or another engine of this one. With "
    "sticky:// sessions live in one process: run one worker (--workers 1) for each server, route by affinity, or share "
    "them with another strategy"
)
_UNKNOWN_TO_ENGINE: Final = (
    "a session of this service is unknown to this engine: another engine of this process wrote it, with other settings (%s). "
    "Give both middlewares the same settings, or the same engine: SessionMiddleware(app, engine=...)"
)
_FOREIGN: Final = (
    "{count} cookies named {name} were signed by no secret of this server, so who sent them has no session here: give every "
    "server the same secret (SESSILE_SECRET), cluster= and cookie_name=, and name the former secret too while browsers have "
    "its cookies; or give this service a cookie_name= of its own"
)
FOREIGN_TOLD: Final = 20
"""The warning is logged after this many foreign cookies: a single one may come from anywhere."""


class Credentials:
    """Reads and issues the two cookies of a session.

    Args:
        settings: names, attributes, secrets.
        counts: counts `foreign` cookies.
        state_of: returns the state of the record that is held here for a key, or None.
        draw: returns this many random bytes.
    """

    def __init__(
        self,
        settings: Settings,
        counts: Counter[str],
        state_of: Callable[[SessionKey], int | None],
        draw: Callable[[int], bytes],
    ) -> None:
        self.policy = CookiePolicy(settings)
        self._settings = settings
        self._counts = counts
        self._state_of = state_of
        self._draw = draw
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self.keyring = self._keyring_of(settings.secrets) if settings.secrets else None
        call_after_fork(self._after_fork)

    def draw_secret(self, server: str | None, *, is_alone: bool) -> None:
        """Draw a secret, because none is set. Allowed for a single server that only this machine can reach.

        Raises:
            SettingsError: this server needs a configured secret: it can be reached from elsewhere, or is not alone.
        """
        is_local = server is None or server.startswith("/") or _LOOPBACK.fullmatch(server) is not None
        if not (is_alone and is_local):
            raise SettingsError(
                f"secret is not set, and this server is reachable at {server}: draw one with `sessile keygen` and give "
                "it to every server, as SESSILE_SECRET or secret=..."
            )
        with self._lock:
            if self.keyring is None:
                self.keyring = self._keyring_of([self._draw(SECRET_BYTES)])
        self.warn_once("no-secret", _DRAWN)

    def read(self, cookie_headers: Iterable[bytes], *, is_https: bool) -> tuple[Presented, Visitor | None]:
        """The cookies that a request presents, and the visitor they identify; None without a valid id cookie."""
        keyring = self.keyring
        assert keyring is not None, "a session is opened with a keyring"
        presented = self.policy.read(cookie_headers, is_https=is_https)
        ids, versions = presented.ids, presented.versions
        if presented.is_inferred:
            self.warn_once("https", _INFERRED_HTTPS)
        if len(ids) != 1 or len(versions) > 1:
            return presented, self._choose(keyring, ids, versions) if ids else None
        visitor = keyring.read(ids[0], versions[0] if versions else b"")
        if visitor is None or visitor.is_version_foreign:
            self._count_foreign(1)
        return presented, visitor

    def draw_identity(self, is_wanted: Callable[[SessionKey], bool] | None) -> Identity:
        """A new id. Its key is wanted, unless none is found within `DRAWS_MAX` draws."""
        for _ in range(DRAWS_MAX):
            session_id = self._draw(ID_BYTES)
            identity = Identity(session_id, key_of(session_id))
            if is_wanted is None or is_wanted(identity.key):
                break
        return identity

    def issue(
        self, presented: Presented | None, visitor: Visitor | None, record: Record, *, is_new: bool
    ) -> list[bytes]:
        """The Set-Cookie values for the version that the browser has seen now and, with `is_new`, for its id."""
        keyring = self.keyring
        assert keyring is not None, "a session is opened with a keyring"
        assert presented is not None and visitor is not None, "a stored session has somebody it belongs to"  # noqa: PT018
        identity, is_https = visitor.identity, presented.is_https
        heads = record.heads
        version = keyring.sign_version(identity, heads)
        version_cookie = self.policy.version_cookie(version, is_https=is_https)
        if not is_new:
            if len(presented.ids) == 1:
                keyring.remember(presented.ids[0], identity, version, heads)
            return [version_cookie]
        id_text = keyring.sign_id(identity)
        keyring.remember(id_text, identity, version, heads)
        return [self.policy.id_cookie(id_text, is_https=is_https), version_cookie]

    def tell_past(self, presented: Presented | None, visitor: Visitor | None) -> list[bytes]:
        """The Set-Cookie value for a browser that presented a rotated id. Its id cookie is left alone.

        The value is a version of the old id that names no write. If the browser has got the new id meanwhile, this version does
        not belong to it: the next request asks the holders, and gets a matching version again.
        """
        if presented is None or visitor is None or visitor.is_past:
            return []
        assert self.keyring is not None, "a session is opened with a keyring"
        version = self.keyring.sign_version(visitor.identity, ())
        return [self.policy.version_cookie(version, is_https=presented.is_https)]

    def revoke(self, presented: Presented | None) -> list[bytes]:
        """The Set-Cookie values that remove the cookies that the browser presented, if any."""
        if presented is None or not presented.ids:
            return []
        return self.policy.removal(is_https=presented.is_https)

    def warn_once(self, about: str, message: str) -> None:
        """Log this message, unless one about the same subject was logged before."""
        if about not in self._warned:
            self._warned.add(about)
            _LOG.warning(message)

    def warn_unknown(self, visitor: Visitor, writer: int, *, differing: Iterable[str] = ()) -> None:
        """Warn once if a session that is unknown here was written by another engine.

        Args:
            visitor: the visitor whose session it is.
            writer: this engine's writer tag.
            differing: if the other engine is in this process, the settings in which the two differ.
        """
        if differing:
            self.warn_once("unknown-to-engine", _UNKNOWN_TO_ENGINE % ", ".join(differing))
        elif any(stamp.writer != writer for stamp in visitor.seen):
            self.warn_once("unknown-here", _UNKNOWN_HERE)

    def _count_foreign(self, number: int) -> None:
        """Count foreign cookies, and warn once when there are many."""
        self._counts["foreign"] += number
        if number and self._counts["foreign"] >= FOREIGN_TOLD:
            name = self._settings.cookie_name
            self.warn_once("foreign", _FOREIGN.format(count=FOREIGN_TOLD, name=name))

    def _after_fork(self) -> None:
        """A thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def _keyring_of(self, secrets: Iterable[bytes]) -> Keyring:
        return Keyring(tuple(secrets), cluster=self._settings.cluster, cookie_name=self._settings.cookie_name)

    def _choose(self, keyring: Keyring, ids: list[bytes], versions: list[bytes]) -> Visitor | None:
        """Choose among several cookies of the same name: the first whose session is live here, or else the best by `_RANKS`."""
        ours = [(text, visitor) for text in ids if (visitor := keyring.read(text, b"")) is not None]
        self._count_foreign(len(ids) - len(ours))
        if not ours:
            return None
        text, visitor = min(ours, key=lambda pair: _RANKS[self._state_of(pair[1].identity.key)])
        seen: dict[int, int] = {}
        for version in versions:
            read = keyring.read(text, version)
            assert read is not None, "the id was read a moment ago"
            self._counts["foreign"] += read.is_version_foreign
            for counter, writer in read.seen:
                seen[writer] = max(counter, seen.get(writer, 0))
        return Visitor(visitor.identity, tuple(sorted(Stamp(counter, writer) for writer, counter in seen.items())))
