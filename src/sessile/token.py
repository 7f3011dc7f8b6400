"""The two signed cookie values of a session, and the key its record is filed under.

The *id* value is ``base64url(mac ‖ id)`` with 18 random bytes; the *version* value is ``base64url(mac ‖ heads)``, and
its MAC covers the id as well, so a version cannot be moved to another session. MACs are keyed BLAKE2b (RFC 7693), their
keys derived from the cluster secret for this purpose, this cluster and this cookie name; of several secrets the first
signs and all verify.

A guess costs one MAC and is not remembered. What has been verified is, in a bounded map, so that the next request of
the same browser costs a look-up. This module draws no randomness: random bytes are arguments.
"""

from __future__ import annotations

import binascii
import re
from hashlib import blake2b
from hmac import compare_digest
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from sessile.record import COUNTER_MAX, WRITER_BITS, Heads, Stamp

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HEADS_MAX", "ID_BYTES", "Identity", "Keyring", "SessionKey", "Visitor", "derive_key", "key_of"]

ID_BYTES: Final = 18
"""144 random bits; OWASP asks for 64, ASVS 5.0 §7.2.3 for 128."""
HEADS_MAX: Final = 64
"""More heads than this are never put into a cookie: the write that would make it so joins them first."""
_ID_MAC_BYTES: Final = 15
_VERSION_MAC_BYTES: Final = 12
_WRITER_BYTES: Final = WRITER_BITS // 8
_REMEMBERED_MAX: Final = 2048

_ID_TEXT: Final = re.compile(rb"[A-Za-z0-9_-]{44}")
_VERSION_TEXT: Final = re.compile(rb"[A-Za-z0-9_-]{16,1212}")
"""Up to `HEADS_MAX` heads with counters of eight bytes."""
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_TO_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")

SessionKey = bytes
"""16 bytes, the BLAKE2b hash of the id: what a record is filed under, replicated as and logged as."""


class Identity(NamedTuple):
    """A session's id, which only its browser and the running request know, and its key."""

    id: bytes
    key: SessionKey

    def __repr__(self) -> str:
        return f"<Identity of {self.key.hex()}>"


class Visitor(Struct, frozen=True, gc=False):
    """What a request's two values say, once verified."""

    identity: Identity
    seen: Heads = ()
    version_text: bytes = b""
    is_version_foreign: bool = False

    @property
    def is_past(self) -> bool:
        """Whether the browser was told that its id is over, and still presents it: it never got the new one."""
        return bool(self.version_text) and not self.seen


class _Recent:
    """A map that remembers at least the last `size` visitors, by the text of their id, and at most twice as many.

    Two generations instead of a linked list: the one in use is thrown away as a whole when the next one is full.
    """

    __slots__ = ("_now", "_past", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._now: dict[bytes, Visitor] = {}
        self._past: dict[bytes, Visitor] = {}

    def get(self, id_text: bytes) -> Visitor | None:
        found = self._now.get(id_text)
        if found is None:
            found = self._past.get(id_text)
            if found is not None:
                self.put(id_text, found)
        return found

    def put(self, id_text: bytes, visitor: Visitor) -> None:
        if len(self._now) >= self._size and id_text not in self._now:
            self._past, self._now = self._now, {}
        self._now[id_text] = visitor


class Keyring:
    """Signs and verifies both values.

    Args:
        secrets: the cluster's secrets; the first signs, all verify.
        cluster: the name of the cluster.
        cookie_name: the name of the id cookie, without a prefix.
    """

    def __init__(self, secrets: Sequence[bytes], *, cluster: str, cookie_name: str) -> None:
        keys = [derive_key(secret, "session cookie", cluster, cookie_name) for secret in secrets]
        self._id_macs = [blake2b(key=key, digest_size=_ID_MAC_BYTES, person=b"sessile id") for key in keys]
        self._version_macs = [
            blake2b(key=key, digest_size=_VERSION_MAC_BYTES, person=b"sessile version") for key in keys
        ]
        self._recent = _Recent(_REMEMBERED_MAX)

    def sign_id(self, identity: Identity) -> bytes:
        """The id cookie's value: 44 characters."""
        mac = self._id_macs[0].copy()
        mac.update(identity.id)
        return _to_text(mac.digest() + identity.id)

    def sign_version(self, identity: Identity, heads: Heads) -> bytes:
        """The version cookie's value: 26 characters for one head of an ordinary session."""
        body = _pack_heads(heads)
        mac = self._version_macs[0].copy()
        mac.update(identity.id + body)
        return _to_text(mac.digest() + body)

    def read(self, id_text: bytes, version_text: bytes) -> Visitor | None:
        """Who presents these two values and what they have seen; None when none of our secrets signed the id.

        A version that is none, not ours or another session's counts as nothing seen.
        """
        known = self._recent.get(id_text)
        if known is not None:
            if known.version_text == version_text:
                return known
            identity = known.identity
        else:
            read = self._read_id(id_text)
            if read is None:
                return None
            identity = read
        heads = self._read_version(identity.id, version_text) if version_text else ()
        if heads is None:  # not remembered: there are as many of these as somebody cares to make up
            return Visitor(identity, is_version_foreign=True)
        visitor = Visitor(identity, heads, version_text)
        self._recent.put(id_text, visitor)
        return visitor

    def remember(self, id_text: bytes, identity: Identity, version_text: bytes, heads: Heads) -> None:
        """Spare the next request with these values, just signed, their verification."""
        self._recent.put(id_text, Visitor(identity, heads, version_text))

    def _read_id(self, text: bytes) -> Identity | None:
        if not _ID_TEXT.fullmatch(text):
            return None
        data = _from_text(text)
        if data is None:
            return None
        digest, session_id = data[:_ID_MAC_BYTES], data[_ID_MAC_BYTES:]
        for keyed in self._id_macs:
            mac = keyed.copy()
            mac.update(session_id)
            if compare_digest(mac.digest(), digest):
                return Identity(session_id, key_of(session_id))
        return None

    def _read_version(self, session_id: bytes, text: bytes) -> Heads | None:
        data = _from_text(text) if _VERSION_TEXT.fullmatch(text) else None
        if data is None:
            return None
        digest, body = data[:_VERSION_MAC_BYTES], data[_VERSION_MAC_BYTES:]
        for keyed in self._version_macs:
            mac = keyed.copy()
            mac.update(session_id + body)
            if compare_digest(mac.digest(), digest):
                return _unpack_heads(body)
        return None


def key_of(session_id: bytes) -> SessionKey:
    """The key of the session with this id. No key leads back to its id."""
    return blake2b(session_id, digest_size=16, person=b"sessile key").digest()


def derive_key(secret: bytes, purpose: str, *context: str) -> bytes:
    """A 32-byte key that serves one purpose only: keyed BLAKE2b over length-prefixed strings.

    Args:
        secret: a cluster secret, of any length.
        purpose: what the key is for.
        context: what it is bound to, such as the cluster's name.
    """
    parts = [part.encode() for part in (purpose, *context)]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return blake2b(message, key=blake2b(secret).digest(), digest_size=32, person=b"sessile derive").digest()


def _pack_heads(heads: Heads) -> bytes:
    """Each head as its writer and its counter, seven bits a byte, the lowest first (LEB128)."""
    if len(heads) == 1 and heads[0][0] < 0x4000:  # as good as always
        counter, writer = heads[0]
        tail = (counter,) if counter < 0x80 else (counter & 0x7F | 0x80, counter >> 7)
        return writer.to_bytes(_WRITER_BYTES, "big") + bytes(tail)
    body = bytearray()
    for counter, writer in heads:
        body += writer.to_bytes(_WRITER_BYTES, "big")
        rest = counter
        while rest > 0x7F:
            body.append(rest & 0x7F | 0x80)
            rest >>= 7
        body.append(rest)
    return bytes(body)


def _unpack_heads(body: bytes) -> Heads:
    """The heads of a body that carried a valid MAC, so was packed by one of us."""
    heads: list[Stamp] = []
    at = 0
    while at + _WRITER_BYTES < len(body) and len(heads) < HEADS_MAX:
        writer = int.from_bytes(body[at : at + _WRITER_BYTES], "big")
        at += _WRITER_BYTES
        counter = shift = 0
        while at < len(body):
            byte = body[at]
            at += 1
            counter |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        heads.append(Stamp(min(counter, COUNTER_MAX), writer))
    return tuple(heads)


def _to_text(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False).translate(_TO_URLSAFE, b"=")


def _from_text(text: bytes) -> bytes | None:
    """The data of a value in its one canonical spelling (RFC 4648 §3.5); None for another."""
    try:
        data = binascii.a2b_base64(text.translate(_TO_STANDARD) + b"=" * (-len(text) % 4), strict_mode=True)
    except binascii.Error:
        return None
    return data if _to_text(data) == text else None
