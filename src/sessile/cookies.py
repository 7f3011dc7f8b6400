"""Cookie policy, and every response header a session causes.

Two cookies: the id, set only when a session is created or rotated, and the version, set whenever it grows; so a late
response can never put an old id back. Over HTTPS both carry the ``__Host-`` prefix (draft-ietf-httpbis-rfc6265bis
§4.1.3), `Secure` and `HttpOnly`; over plain HTTP, where a browser would refuse the prefix, they go without.

This module knows names and attributes, not what a value means.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessile.settings import Settings

__all__ = ["CookiePolicy", "Presented", "add_headers", "says_https"]

CANDIDATES_MAX: Final = 8
"""Of several cookies of one name (RFC 6265 §5.4 allows them, one for each path) so many are tried."""
_EXPIRED: Final = b"Thu, 01 Jan 1970 00:00:00 GMT"


class Presented(Struct, frozen=True, gc=False):
    """What a request's Cookie headers say."""

    ids: list[bytes]
    versions: list[bytes]
    is_https: bool
    """Whether the answer goes to a browser over HTTPS, as far as can be told."""
    is_inferred: bool
    """Whether only the cookie's own name told so: TLS ended in front of this server."""

    def __repr__(self) -> str:
        return f"<Presented {len(self.ids)} ids, {len(self.versions)} versions>"


class _Variant(NamedTuple):
    """The names and attributes that cookies have over one scheme."""

    id_name: bytes
    version_name: bytes
    attributes: bytes


class CookiePolicy:
    """Reads and writes the two cookies as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._secure = settings.secure
        self._https = _variant(settings, is_https=True)
        self._http = _variant(settings, is_https=False)
        self._https_mark, self._https_pattern = _finder(self._https)
        self._http_mark, self._http_pattern = _finder(self._http)

    def read(self, cookie_headers: Iterable[bytes], *, is_https: bool) -> Presented:
        """The candidate values in a request's Cookie headers.

        Over HTTPS only the prefixed names count: a cookie without the prefix may have been planted over plain HTTP.
        """
        headers = tuple(cookie_headers)
        header = headers[0] if len(headers) == 1 else b"; ".join(headers)  # RFC 9113 §8.2.3
        is_inferred = False
        if self._secure != "auto":
            is_https = bool(self._secure)
        elif not is_https and self._https_mark in header and self._https_mark != self._http_mark:
            is_inferred = is_https = self._https_pattern.search(header) is not None
        found: list[tuple[bytes, bytes]] = (self._https_pattern if is_https else self._http_pattern).findall(header)
        if len(found) == 2 and found[1][0] and not found[0][0]:  # as good as always
            return Presented([found[0][1]], [found[1][1]], is_https, is_inferred)
        ids = [value for suffix, value in found if not suffix]
        versions = [value for suffix, value in found if suffix]
        return Presented(ids[:CANDIDATES_MAX], versions[:CANDIDATES_MAX], is_https, is_inferred)

    def id_cookie(self, value: bytes, *, is_https: bool) -> bytes:
        """The Set-Cookie value that gives the browser a session id."""
        variant = self._https if is_https else self._http
        return b"%b=%b%b" % (variant.id_name, value, variant.attributes)

    def version_cookie(self, value: bytes, *, is_https: bool) -> bytes:
        """The Set-Cookie value that tells the browser what it has seen."""
        variant = self._https if is_https else self._http
        return b"%b=%b%b" % (variant.version_name, value, variant.attributes)

    def removal(self, *, is_https: bool) -> list[bytes]:
        """The Set-Cookie values that make the browser forget both."""
        variant = self._https if is_https else self._http
        ending = b"=; Expires=%b; Max-Age=0%b" % (_EXPIRED, variant.attributes)
        return [variant.id_name + ending, variant.version_name + ending]


def _finder(variant: _Variant) -> tuple[bytes, re.Pattern[bytes]]:
    """What a header with one of the two cookies has in it, and the pattern that finds (suffix, value) of each."""
    name = re.escape(variant.id_name)
    pattern = re.compile(rb"(?:^|;)[ \t]*%b(_v)?=([A-Za-z0-9_-]*)(?=[ \t]*(?:;|$))" % name)
    return variant.id_name, pattern


def _variant(settings: Settings, *, is_https: bool) -> _Variant:
    prefix = ""
    if is_https:
        prefix = "__Host-" if settings.path == "/" else "__Secure-"
    # Browsers refuse SameSite=None without Secure (RFC 6265bis §5.6.7.2).
    samesite = settings.samesite if is_https or settings.samesite != "none" else "lax"
    attributes = f"; HttpOnly; Path={settings.path}; SameSite={samesite.capitalize()}"
    if is_https:
        attributes += "; Secure"
        if settings.partitioned:
            attributes += "; Partitioned"
    name = prefix + settings.cookie_name
    return _Variant(name.encode(), f"{name}_v".encode(), attributes.encode())


def says_https(value: bytes) -> bool:
    """Whether the value of an X-Forwarded-Proto or Forwarded field (RFC 7239) says that the browser speaks https."""
    value = value[:256].lower()
    return value.lstrip().startswith((b"https", b"wss")) or b"proto=https" in value or b'proto="https' in value


def add_headers(headers: list[tuple[bytes, bytes]], cookies: list[bytes]) -> None:
    """Add to a response's headers what follows from using the session, in place.

    `Vary: Cookie` is merged into what is there (RFC 9110 §12.5.5). With a cookie to set, `Cache-Control` becomes
    `no-store` (RFC 9111 §5.2.2.5), whatever the application wished: a cache would give the cookie to others.
    """
    vary_at = -1
    cookie_varies = is_cacheable = False
    for at, (name, value) in enumerate(headers):
        size = len(name)
        if size == 4 and name.lower() == b"vary":
            vary_at = at
            cookie_varies = cookie_varies or _varies_by_cookie(value)
        elif size == 13 and name.lower() == b"cache-control":
            is_cacheable = True
    if vary_at < 0:
        headers.append((b"vary", b"Cookie"))
    elif not cookie_varies:
        name, value = headers[vary_at]
        headers[vary_at] = (name, value + b", Cookie" if value.strip() else b"Cookie")
    if cookies:
        if is_cacheable:
            headers[:] = [pair for pair in headers if pair[0].lower() != b"cache-control"]
        headers.append((b"cache-control", b"no-store"))
        headers.extend([(b"set-cookie", cookie) for cookie in cookies])


def _varies_by_cookie(value: bytes) -> bool:
    return not {b"cookie", b"*"}.isdisjoint(part.strip().lower() for part in value.split(b","))
