"""The parts of a store's URL, each as the URL says it (RFC 3986), whatever driver it is for.

A URL is split first and unescaped then, so an escaped character separates nothing. `+` is a plus: to read it as a space
belongs to HTML forms. The one liberty is an `@` in a user or password: the last one ends it, as browsers read it.

A refusal is a ValueError as in `sessile.kinds`, the end of a sentence. It repeats no part of the URL.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sessile.urls import ESCAPES, query_of, refuse_bare_at, unescaped

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["StoreUrl", "file_of", "shown_hosts"]


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """What the URL of a store with hosts says. Everything is unescaped."""

    scheme: str
    username: str = field(repr=False)
    password: str = field(repr=False)
    hosts: tuple[tuple[str, int | None], ...] = field(repr=False)
    """Hosts and ports; an IPv6 address without its brackets."""
    path: tuple[str, ...] = field(repr=False)
    """What stands between the slashes behind the hosts."""
    parameters: dict[str, str] = field(repr=False)

    @classmethod
    def read(cls, url: str) -> StoreUrl:
        """The parts of a URL.

        Raises:
            ValueError: it is malformed.
        """
        scheme, place, query = _split(url)
        authority, _, path = place.partition("/")
        refuse_bare_at(path + query)
        credentials, _, hosts = authority.rpartition("@")
        username, _, password = credentials.partition(":")
        return cls(
            scheme,
            unescaped(username),
            unescaped(password),
            tuple(_host(text.strip()) for text in hosts.split(",")) if hosts else (),
            tuple(_printable(part) for part in path.split("/") if part),
            query_of(query),
        )


def file_of(url: str) -> tuple[str, dict[str, str]]:
    """The path in the URL of a file, and the parameters. The path is empty where there is a host.

    Raises:
        ValueError: it is malformed.
    """
    _, place, query = _split(url)
    host, _, path = place.partition("/")
    return "" if host else _printable(path), query_of(query)


def shown_hosts(hosts: Iterable[tuple[str, int | None]], usual_port: int | None = None) -> str:
    """Hosts as a URL names them, for people; each without its port if that is the usual one."""
    texts = [(f"[{host}]" if ":" in host else host, port) for host, port in hosts]
    return ",".join(host if port in {None, usual_port} else f"{host}:{port}" for host, port in texts)


def _split(url: str) -> tuple[str, str, str]:
    """The scheme, what stands between it and the query, and the query."""
    scheme, _, rest = url.strip().partition("://")
    if "#" in rest:
        raise ValueError(f"has a #: in a user, password, path or value write {ESCAPES}")
    place, _, query = rest.partition("?")
    return scheme.lower(), place, query


def _printable(text: str) -> str:
    """An unescaped part that people may be shown, in one line."""
    plain = unescaped(text)
    if not plain.isprintable():
        raise ValueError("holds a character that cannot be printed: leave it out")
    return plain


def _host(text: str) -> tuple[str, int | None]:
    """Host and port; an IPv6 address stands in brackets."""
    host, separator, port = text.rpartition(":")
    if not separator or host.count("[") != host.count("]"):
        host, port = text, ""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif any(mark in host for mark in "[]:"):
        host = ""
    host = _printable(host)
    if not host or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16)):
        raise ValueError("names a host that is none: write host, or host:port")
    return host, int(port) if port else None
