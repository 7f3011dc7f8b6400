"""What the balancer promises of a request head beyond RFC 9112's grammar: why it is refused, or what may go on.

Refused are: a version but 1.0 and 1.1, CONNECT, a target in none of the four forms or with a fragment, not exactly one
valid Host (HTTP/1.0 may have none: the server gets the target's, or the address the client came to), an absolute form that names another host, a Connection that is no list of tokens or that nominates Host,
Cookie or Content-Length, a field name with `_`, more than 100 fields or 16 KB. Cut are hop-by-hop and nominated fields,
Forwarded, X-Forwarded-* and the affinity cookie; then X-Forwarded-For, -Proto and -Host are added.

Written from these rules, not from the balancer, and kept so: the judge is worth something only while the two are two.
"""

from __future__ import annotations

import re
from typing import Final

from bench.hostile.grammar import TOKEN, Request

__all__ = [
    "CLIENT_ADDRESS",
    "FIELDS_MAX",
    "HEAD_BYTES_MAX",
    "forwarded_fields",
    "origin_target",
    "reached_fields",
    "refusal",
]

HEAD_BYTES_MAX: Final = 16_384
FIELDS_MAX: Final = 100
CLIENT_ADDRESS: Final = b"127.0.0.1"

HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
        b"http2-settings",
    }
)  # fmt: skip
"""RFC 9110 §7.6.1, with Proxy-Auth* beside them, and what proxies and the old way to HTTP/2 (RFC 7540 §3.2.1) have made of it."""
FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
OURS: Final = {b"x-forwarded-for": CLIENT_ADDRESS, b"x-forwarded-proto": b"http", b"x-forwarded-host": b""}
NOT_TO_NOMINATE: Final = frozenset({b"host", b"cookie", b"content-length"})

_REG_NAME: Final = rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+"
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|" + _REG_NAME + rb")(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]+)([/?][^#]*)?", re.IGNORECASE)
_OPTIONS: Final = re.compile(rb"[ \t,]*(?:" + TOKEN + rb"[ \t]*(?:,[ \t]*|$))*")


def refusal(request: Request) -> str:
    """Why this head must be refused, or nothing."""
    checks = (_line_refusal, _host_refusal, _connection_refusal, _names_refusal)
    return next((why for check in checks if (why := check(request))), "")


def _line_refusal(request: Request) -> str:
    if request.version not in {b"1.0", b"1.1"}:
        return "version is not 1.0 or 1.1"
    if request.method == b"CONNECT":
        return "CONNECT"
    if b"#" in request.target:
        return "a fragment in the target (RFC 9112 §3.2)"
    if request.target.startswith(b"/") or (request.target == b"*" and request.method == b"OPTIONS"):
        return ""
    return "" if _ABSOLUTE.fullmatch(request.target) else "the target has none of the forms of RFC 9112 §3.2"


def _host_refusal(request: Request) -> str:
    hosts = request.values(b"host")
    if not hosts and request.version == b"1.0":
        named = _ABSOLUTE.fullmatch(request.target)
        return "" if named is None or _HOST.fullmatch(named[1]) else "the target names no valid host"
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        return "not exactly one valid Host"
    absolute = _ABSOLUTE.fullmatch(request.target)
    if absolute and _authority(absolute[1]) != _authority(hosts[0]):
        return "absolute form names another host"
    return ""


def _authority(text: bytes) -> bytes:
    return re.sub(rb":(?:80|443)?\Z", b"", text.lower())


def _connection_refusal(request: Request) -> str:
    for value in request.values(b"connection"):
        if not _OPTIONS.fullmatch(value):
            return "Connection is not a list of tokens"
    return "Connection nominates what must arrive" if nominated(request) & NOT_TO_NOMINATE else ""


def _names_refusal(request: Request) -> str:
    if len(request.fields) > FIELDS_MAX or request.head_bytes > HEAD_BYTES_MAX:
        return "too long a head"
    return "a name with _" if any(b"_" in name for name, _ in request.fields) else ""


def nominated(request: Request) -> set[bytes]:
    """The field names that Connection declares to be for this hop only (RFC 9110 §7.6.1)."""
    values = b",".join(request.values(b"connection"))
    return {option.strip(b" \t").lower() for option in values.split(b",")} - {b"", b"close", b"keep-alive"}


def origin_target(request: Request) -> bytes:
    """The target as the server must get it: origin form (RFC 9112 §3.2.1)."""
    absolute = _ABSOLUTE.fullmatch(request.target)
    if absolute is None:
        return request.target
    rest: bytes = absolute[2] or b""
    if not rest and request.method == b"OPTIONS":
        return b"*"
    return rest if rest.startswith(b"/") else b"/" + rest


def forwarded_fields(request: Request, affinity: bytes, here: bytes = b"") -> dict[bytes, list[bytes]]:
    """What must reach the server, by name, framing left out: the client's own fields, cut, and ours.

    `here` is the address the client came to.
    """
    cut = HOP_BY_HOP | FRAMING | nominated(request) | {b"forwarded", b"cookie"}
    fields: dict[bytes, list[bytes]] = {}
    for name, value in request.fields:
        if name not in cut and not name.startswith((b"x-forwarded-", b"proxy-auth")):
            fields.setdefault(name, []).append(value)
    if b"cookie" not in nominated(request) and (pairs := cookie_pairs(request, affinity)):
        fields[b"cookie"] = pairs
    absolute = _ABSOLUTE.fullmatch(request.target)
    host = fields.setdefault(b"host", [absolute[1] if absolute else here])[0]
    for name, value in OURS.items():
        fields[name] = [value or host]
    if _is_websocket(request):
        fields[b"upgrade"] = [b"websocket"]
    return fields


def reached_fields(request: Request) -> dict[bytes, list[bytes]]:
    """What reached the server, in the shape of `forwarded_fields`; Connection is the proxy's own there."""
    fields: dict[bytes, list[bytes]] = {}
    for name, value in request.fields:
        if name not in FRAMING and name not in {b"connection", b"cookie"}:
            fields.setdefault(name, []).append(value.lower() if name == b"upgrade" else value)
    if pairs := cookie_pairs(request):
        fields[b"cookie"] = pairs
    return fields


def _is_websocket(request: Request) -> bool:
    framing = [(name, value) for name, value in request.fields if name in FRAMING]
    is_bodyless = request.method == b"GET" and framing in ([], [(b"content-length", b"0")])
    upgrades = [value.lower() for value in request.values(b"upgrade")]
    return is_bodyless and request.version == b"1.1" and upgrades == [b"websocket"] and b"upgrade" in nominated(request)


def cookie_pairs(request: Request, without: bytes = b"") -> list[bytes]:
    """All cookies of a request as `name=value`, in order, but those of one name (RFC 6265 §5.4)."""
    pairs = [pair.strip(b" \t") for value in request.values(b"cookie") for pair in value.split(b";")]
    return [pair for pair in pairs if pair and not (without and pair.startswith(without + b"="))]
