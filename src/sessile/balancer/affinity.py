"""Which server a client belongs to: opaque tokens in a cookie of ours, or values that the servers themselves hand out.

A token is a keyed BLAKE2b of the server's name under a key derived for this purpose alone. It says nothing about the
server, cannot be guessed, and is verified by looking it up among the tokens of the servers there are: with several
secrets the first issues and all verify. Values of the servers' own (`Mcp-Session-Id`) are learned from responses, as
hashes, bounded. Pure: no clock, no randomness, no IO.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from sessile.token import derive_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sessile.balancer.settings import Affinity

__all__ = ["OTHER_COOKIES", "Learned", "cookie_name", "derived_key", "set_cookie", "token", "tokens_of"]

_PURPOSE: Final = b"sessile affinity"
OTHER_COOKIES: Final = b"affinity-"
TOKEN_BYTES: Final = 15  # 120 bits: 20 characters without padding


def derived_key(secret: str) -> bytes:
    """The key for affinity tokens; knowing it gives nothing of the cluster secret or of the session cookies' keys."""
    return derive_key(secret.encode(errors="surrogateescape"), "affinity cookie")


def token(key: bytes, server: str) -> bytes:
    """The affinity cookie's value for the server of this name."""
    mac = blake2b(server.encode(), key=key, digest_size=TOKEN_BYTES, person=_PURPOSE).digest()
    return urlsafe_b64encode(mac)


def tokens_of(secrets: Sequence[str], servers: Iterable[str]) -> dict[bytes, str]:
    """Every token that is accepted, and the server it stands for."""
    keys = [derived_key(secret) for secret in secrets]
    return {token(key, server): server for server in servers for key in keys}


def cookie_name(secret: str, cluster: str, port: int) -> bytes:
    """The cookie's name where none is given: another one for each secret, each cluster and each port.

    Browsers tell hosts apart, but not their ports (RFC 6265 section 8.5): two services on one host would take each other's
    cookie away. `OTHER_COOKIES` begins all such names, so that a balancer finds what one like it has set.
    """
    about = f"affinity cookie of {cluster} at {port}".encode()
    return OTHER_COOKIES + blake2b(about, key=derived_key(secret), digest_size=4).hexdigest().encode()


def set_cookie(name: bytes, value: bytes, affinity: Affinity, *, is_secure: bool) -> bytes:
    """The lines added to a response that moves a client to a server, for RFC 6265 browsers and for caches.

    SameSite=None and Partitioned need Secure, or browsers refuse the cookie (RFC 6265bis section 5.7): without it the
    cookie is Lax, and not partitioned, as the session's is.
    """
    samesite = affinity.samesite if is_secure or affinity.samesite != "none" else "lax"
    attributes = f"; Path=/; HttpOnly; SameSite={samesite.capitalize()}"
    if is_secure:
        attributes += "; Secure"
        if affinity.partitioned:
            attributes += "; Partitioned"
    return b"Set-Cookie: %b=%b%b\r\nCache-Control: no-store\r\n" % (name, value, attributes.encode())


class Learned:
    """Affinity values seen in responses -> server; the least recently used are forgotten beyond `entries_max`."""

    __slots__ = ("_entries", "_entries_max")

    def __init__(self, entries_max: int = 100_000) -> None:
        self._entries: OrderedDict[bytes, str] = OrderedDict()
        self._entries_max = entries_max

    def __len__(self) -> int:
        return len(self._entries)

    def learn(self, value: bytes, server: str) -> None:
        key = _hashed(value)
        self._entries[key] = server
        self._entries.move_to_end(key)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def server_of(self, value: bytes) -> str | None:
        key = _hashed(value)
        server = self._entries.get(key)
        if server is not None:
            self._entries.move_to_end(key)
        return server


def _hashed(value: bytes) -> bytes:
    return blake2b(value, digest_size=16, person=_PURPOSE).digest()
