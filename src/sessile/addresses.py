"""Where servers are reached: addresses, and DNS names that stand for the addresses of several.

What people write is read into one form: lower case, always with a port, IP addresses as `ipaddress` writes them. So two
spellings of one address are equal, and `str` gives the name by which nodes know each other. A refusal is a ValueError
as in `sessile.kinds`, the end of a sentence. Nothing here resolves a name or opens a connection.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["MEMBERS_MAX", "PORT", "Address", "DnsName", "read_listening", "read_members", "read_reachable", "split"]

PORT: Final = 7400
"""Where nodes listen unless told otherwise."""
PORT_MAX: Final = 65_535
MEMBERS_MAX: Final = 1_024
"""So many addresses a node looks at; a mesh is full long before."""
NAME_CHARS_MAX: Final = 253
DNS: Final = "dns:"

_SHAPE: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::(\d{1,5}))?", re.ASCII)
_LABEL: Final = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_NAME: Final = re.compile(rf"({_LABEL}\.)*(?!\d+\.?$){_LABEL}\.?", re.ASCII)
"""Names with underscores too, which container networks give; the last label of a name is no number."""
_WANTED: Final = "is no address: give a host name or an IP address, alone or with a port, as in web1:7400"


class Address(NamedTuple):
    """The address of one server."""

    host: str
    """A name or an IP address, without brackets."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        ip = _ip(self.host)
        return self.host == "localhost" if ip is None else ip.is_loopback

    @property
    def is_unspecified(self) -> bool:
        """Whether it means every interface of this machine, as 0.0.0.0 does."""
        ip = _ip(self.host)
        return ip is not None and ip.is_unspecified


@dataclass(frozen=True, slots=True)
class DnsName:
    """A name of which every address is a server's; they may change at any time."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{DNS}{self.name}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Never for certain."""
        return False


def read_members(value: object) -> tuple[Address | DnsName, ...]:
    """Servers: one text with commas between them, or a sequence. `dns:` begins a name that stands for several."""
    members: dict[Address | DnsName, None] = {}
    for item in _items(value):
        try:
            member = _read_member(item)
        except ValueError as error:
            raise ValueError(f"holds {item!r:.80}, which {error}") from None
        if member in members:
            raise ValueError(f"holds {member} twice: leave one out")
        members[member] = None
    if len(members) > MEMBERS_MAX:
        raise ValueError(
            f"holds more than {MEMBERS_MAX} servers: name some of them, the others are found through these"
        )
    return tuple(members)


def read_reachable(value: object) -> str:
    """`host:port` at which others reach a server; empty for nothing."""
    return "" if value is None or value == "" else str(_read_reachable(value))


def read_listening(value: object) -> str:
    """`host:port` to listen at, every interface allowed; empty for nothing. There is no usual port here."""
    if value is None or value == "":
        return ""
    host, port = _parse(value)
    if port is None:
        raise ValueError("is an address without a port: give both, as in 0.0.0.0:7400")
    return str(Address(host, port))


def split(text: str) -> Address:
    """An address from its text.

    Raises:
        ValueError: it is none.
    """
    host, port = _parse(text)
    return Address(host, PORT if port is None else port)


def _items(value: object) -> Sequence[object]:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",")] if value.strip() else []
    if isinstance(value, Address | DnsName):
        return [value]
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return value
    raise ValueError("is no list of addresses: give some with commas between them, as in web1:7400,web2:7400")


def _read_member(item: object) -> Address | DnsName:
    text = str(item) if isinstance(item, DnsName) else item
    if not isinstance(text, str) or not text.strip().lower().startswith(DNS):
        return _read_reachable(item)
    host, port = _parse(text.strip()[len(DNS) :])
    if _ip(host) is not None:
        raise ValueError(f"is an IP address, which needs no DNS: leave out {DNS}")
    return DnsName(host, PORT if port is None else port)


def _read_reachable(value: object) -> Address:
    host, port = _parse(value)
    address = Address(host, PORT if port is None else port)
    if address.is_unspecified:
        raise ValueError("is every interface of this machine: give the address at which others reach it")
    return address


def _parse(value: object) -> tuple[str, int | None]:
    """The host in its one form, and the port if there is one."""
    text = str(value) if isinstance(value, Address) else value
    if not isinstance(text, str):
        raise ValueError(_WANTED)  # noqa: TRY004 - all refusals are ValueErrors
    text = text.strip().lower()
    found = _SHAPE.fullmatch(text)
    if found is None:
        if ":" in text and _ip(text) is not None:
            raise ValueError("is an IPv6 address without brackets: write it as in [2001:db8::1]:7400")
        raise ValueError(_WANTED)
    bracketed, bare, port = found.groups()
    ip = _ip(bare if bracketed is None else bracketed)
    if ip is None:
        if bare is None or len(bare) > NAME_CHARS_MAX or not _NAME.fullmatch(bare):
            raise ValueError(_WANTED)
        host = bare
    else:
        if (ip.version == 6) is (bracketed is None) or getattr(ip, "scope_id", None):
            raise ValueError(_WANTED)
        host = str(ip)
    if port is not None and not 0 < int(port) <= PORT_MAX:
        raise ValueError(f"is an address without a port from 1 to {PORT_MAX}: give one, as in web1:{PORT}")
    return host, None if port is None else int(port)


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
