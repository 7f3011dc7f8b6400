"""Who may use the control API: somebody on this machine, from a page of this very server, and on purpose.

The socket listens on loopback only, and that is not enough: any web page can send requests there. So the Host must be a
loopback name (a rebound DNS name is not), an Origin must be this server's own (RFC 6454 §7; the demo's page on the other
port is a stranger too), and what changes something must carry a header that no form and no simple request can send.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MARK", "refusal"]

MARK: Final = "X-Sessile"
"""The header, with the value 1, of every request that changes something."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?")


def refusal(method: str, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Why a request may not pass, as a sentence; None when it may."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    hosts = found.get("host", [])
    if len(hosts) != 1 or not _is_loopback(hosts[0]):
        return "the Host must be a loopback name, such as 127.0.0.1 or localhost"
    own = f"http://{hosts[0]}".lower()
    if any(origin.lower() != own for origin in found.get("origin", [])):
        return "the Origin is not this server's own: another page's requests are refused"
    if method not in _SAFE and found.get(MARK.lower()) != ["1"]:
        return f"a request that changes something must carry the header {MARK}: 1"
    return None


def _is_loopback(authority: str) -> bool:
    match = _AUTHORITY.fullmatch(authority.lower())
    if match is None:
        return False
    host = match.group(1).strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
