"""The URL of Redis or Valkey: what is behind it, and how a connection to it is made; its password is never shown.

::

    redis://user:password@host:6379/0                         one server
    redis+sentinel://user:password@h1:26379,h2,h3/NAME/0      the primary that these Sentinels name
    redis+cluster://user:password@h1:6379,h2                  a cluster, of which these are some nodes

`rediss` is the same over TLS, and so is `?tls=true` behind each of them; `valkey`, `valkeys` and so on mean the same. The
query may give `ca_certs`, `certfile` and `keyfile`, and `sentinel_username` and `sentinel_password`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from sessile.errors import SettingsError
from sessile.kinds import nearest

__all__ = ["CLUSTER", "PORT", "SENTINEL", "SENTINEL_PORT", "SINGLE", "RedisAddress"]

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
SINGLE: Final = "single"
SENTINEL: Final = "sentinel"
CLUSTER: Final = "cluster"

_SCHEMES: Final = {
    **{f"{name}": (SINGLE, False) for name in ("redis", "valkey")},
    **{f"{name}s": (SINGLE, True) for name in ("redis", "valkey")},
    **{f"{name}+{kind}": (kind, False) for name in ("redis", "valkey") for kind in (SENTINEL, CLUSTER)},
}
_FILES: Final = ("ca_certs", "certfile", "keyfile")
_KNOWN: Final = (*_FILES, "sentinel_username", "sentinel_password", "tls")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What a URL says."""

    scheme: str
    kind: str
    hosts: tuple[tuple[str, int], ...]
    name: str
    """What the Sentinels call the primary."""
    db: int
    username: str
    password: str = field(repr=False)
    is_tls: bool
    options: dict[str, str] = field(repr=False)
    """What the query says beside."""

    @classmethod
    def read(cls, url: str) -> RedisAddress:
        """The address in a URL.

        Raises:
            SettingsError: there is something wrong with it, which the message names without repeating the URL.
        """
        try:
            parts = urlsplit(url)
            scheme = parts.scheme.lower()
            kind, is_tls = _SCHEMES[scheme]
            options = _options(parts.query)
            credentials, _, hosts = parts.netloc.rpartition("@")
            username, _, password = credentials.partition(":")
            default_port = SENTINEL_PORT if kind == SENTINEL else PORT
            addresses = tuple(_host(text, default_port) for text in (hosts or "localhost").split(","))
            name, db = _path(kind, [unquote(part) for part in parts.path.split("/") if part])
            if kind == SINGLE and len(addresses) > 1:
                raise ValueError("names several servers: write redis+sentinel:// or redis+cluster://")  # noqa: TRY301
        except KeyError:
            raise SettingsError(f"the store's URL has no scheme of Redis: write one of {', '.join(_SCHEMES)}") from None
        except ValueError as error:
            raise SettingsError(f"the store's URL {error}") from None
        is_tls = is_tls or options.get("tls") == "true"
        return cls(scheme, kind, addresses, name, db, unquote(username), unquote(password), is_tls, options)

    @property
    def where(self) -> str:
        """The URL without what is secret in it."""
        port = SENTINEL_PORT if self.kind == SENTINEL else PORT
        hosts = ",".join(_host_text(host, at, port) for host, at in self.hosts)
        path = f"/{self.name}" if self.name else ""
        return f"{self.scheme}://{hosts}{path}" + (f"/{self.db}" if self.db else "")

    def connection_options(self) -> dict[str, Any]:
        """Keyword arguments of a connection to a server with data, without host and port."""
        options = {"db": self.db, "username": self.username or None, "password": self.password or None}
        return {**options, **self._tls_options()}

    def sentinel_options(self) -> dict[str, Any]:
        """The same for a connection to a Sentinel, which has users of its own, or none."""
        username, password = self.options.get("sentinel_username"), self.options.get("sentinel_password")
        return {"username": username, "password": password, **self._tls_options()}

    def _tls_options(self) -> dict[str, Any]:
        return {f"ssl_{name}": self.options[name] for name in _FILES if name in self.options} if self.is_tls else {}


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else {}
    for name in options:
        if name not in _KNOWN:
            raise ValueError(f"has an unknown parameter; did you mean {nearest(name, _KNOWN)}?")
    if options.get("tls", "false") not in {"true", "false"}:
        raise ValueError("says neither tls=true nor tls=false")
    return options


def _host(text: str, default_port: int) -> tuple[str, int]:
    """Host and port; an IPv6 address stands in brackets."""
    host, separator, port = text.strip().rpartition(":")
    if not separator or host.count("[") != host.count("]"):
        host, port = text.strip(), ""
    host = host.removeprefix("[").removesuffix("]")
    if not host or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16)):
        raise ValueError("names a host that is none: write host, or host:port")
    return host, int(port) if port else default_port


def _host_text(host: str, port: int, default_port: int) -> str:
    host = f"[{host}]" if ":" in host else host
    return host if port == default_port else f"{host}:{port}"


def _path(kind: str, parts: list[str]) -> tuple[str, int]:
    """The primary's name, and the database."""
    name = ""
    if kind == SENTINEL:
        if not parts:
            raise ValueError("does not say what the Sentinels call the primary: write redis+sentinel://h1,h2,h3/NAME")
        name, *parts = parts
    if not parts:
        return name, 0
    if len(parts) > 1 or not (parts[0].isascii() and parts[0].isdigit()):
        raise ValueError("names a database that is no number: write redis://host/0")
    if kind == CLUSTER and int(parts[0]):
        raise ValueError("names a database, but a cluster has one only")
    return name, int(parts[0])
