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
from typing import TYPE_CHECKING, Any, Final

from sessile.errors import SettingsError
from sessile.kinds import nearest
from sessile.stores.store_url import StoreUrl, shown_hosts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
            said = StoreUrl.read(url)
            kind, is_tls = _SCHEMES[said.scheme]
            _check(said.parameters)
            default_port = SENTINEL_PORT if kind == SENTINEL else PORT
            hosts = tuple((host, port or default_port) for host, port in said.hosts) or (("localhost", default_port),)
            name, db = _path(kind, said.path)
            if kind == SINGLE and len(hosts) > 1:
                raise ValueError("names several servers: write redis+sentinel:// or redis+cluster://")  # noqa: TRY301
        except KeyError:
            raise SettingsError(f"the store's URL has no scheme of Redis: write one of {', '.join(_SCHEMES)}") from None
        except ValueError as error:
            raise SettingsError(f"the store's URL {error}") from None
        is_tls = is_tls or said.parameters.get("tls") == "true"
        return cls(said.scheme, kind, hosts, name, db, said.username, said.password, is_tls, said.parameters)

    @property
    def where(self) -> str:
        """The URL without what is secret in it."""
        hosts = shown_hosts(self.hosts, SENTINEL_PORT if self.kind == SENTINEL else PORT)
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


def _check(parameters: Mapping[str, str]) -> None:
    for name in parameters:
        if name not in _KNOWN:
            raise ValueError(f"has an unknown parameter; did you mean {nearest(name, _KNOWN)}?")
    if parameters.get("tls", "false") not in {"true", "false"}:
        raise ValueError("says neither tls=true nor tls=false")


def _path(kind: str, parts: Sequence[str]) -> tuple[str, int]:
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
