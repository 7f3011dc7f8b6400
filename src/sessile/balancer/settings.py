"""Everything that can be set on the balancer, as one frozen object, from TOML and from keywords.

Building one does no IO beyond reading the file it is given. What is unknown, malformed or contradictory raises
`BalancerError` with one sentence that names the setting and the remedy.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sessile import kinds
from sessile.balancer.affinity import cookie_name
from sessile.balancer.algorithms import ALGORITHMS
from sessile.balancer.health import HealthPolicy
from sessile.errors import BalancerError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sessile.kinds import Kind

__all__ = [
    "AFFINITY",
    "Affinity",
    "BalancerSettings",
    "Limits",
    "ServerAddress",
    "Timeouts",
    "parse_address",
    "parse_server",
    "read_toml",
    "secrets_of",
]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
AFFINITY: Final = {
    "cookie_name": "name",
    "affinity_refresh": "refresh",
    "affinity_secure": "secure",
    "affinity_samesite": "samesite",
    "affinity_partitioned": "partitioned",
}
"""Settings of `Affinity` by the names they have in a file, and beside what `affinity` itself says."""
SERVERS_MAX: Final = 1024
OTHER_DESCRIPTORS: Final = 128
"""Of a worker: what it listens on, its log, its loop's own, connections that are being refused."""
WEIGHT_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """One server behind the balancer."""

    name: str
    host: str
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Affinity:
    """Where a request says which server it belongs to: kind `cookie`, `header`, `query` or `none`."""

    kind: str = "cookie"
    name: str = ""
    """Of the cookie, header or parameter; that of a cookie follows from secret, cluster and port, if none is given."""
    refresh: str = "when-needed"
    """`when-needed` sets the cookie when the server changes, `always` in every response."""
    secure: str = "auto"
    """`auto` sets Secure when the client's side is https by a trusted peer's word; `always`; `never`."""
    samesite: str = "lax"
    """`lax`, `strict` or `none`: as the session cookie's, or the two part where pages are embedded in other sites."""
    partitioned: bool = False
    """Whether it has another value under each site that embeds the service (CHIPS); as the session cookie's."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each wait may last, in seconds."""

    connect_s: float = 1.0
    head_s: float = 10.0
    """For a whole request head from its first byte, however slowly it drips."""
    body_s: float = 30.0
    """Without a byte of the request body."""
    response_s: float = 60.0
    """From the end of the request to the response head."""
    stream_s: float = 120.0
    """Without a byte of the response, or with a client that takes none."""
    idle_s: float = 60.0
    """Between two requests of a client."""
    upstream_idle_s: float = 4.0
    """How long an unused connection to a server is kept; below the 5 s after which common servers hang up."""
    tunnel_s: float = 3600.0
    """Without a byte in either direction of a WebSocket."""
    linger_s: float = 2.0
    """To let a client read the answer while it still sends what nobody wants."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of anything is accepted."""

    head_bytes: int = 16_384
    fields: int = 100
    replay_bytes: int = 65_536
    """Of a request body, kept in memory: more of one that is collected goes to a temporary file, and a request with more
    that is passed on as it comes cannot be sent once more."""
    buffered_bytes: int = 1_073_741_824
    """Of request bodies in temporary files, all together in one worker; a body beyond it is passed on as it comes."""
    buffered_files: int = 1024
    """The same files, counted."""
    pipelined_bytes: int = 65_536
    """Read ahead of the request being served; reading pauses beyond it, so there may be one read more."""
    body_rate_bytes: int = 100
    """A request body must come at least this fast per second, once `body_s` have passed."""
    connections: int = 20_000
    connections_per_address: int = 512
    connections_per_loopback: int = 0
    """The same for clients on this host; 0 is no limit."""
    idle_upstreams: int = 256
    """Unused connections kept to each server."""
    learned: int = 100_000
    """Affinity values remembered, where affinity is by header or query."""

    @property
    def descriptors(self) -> int:
        """How many a worker may need, beside those for the health checks: a connection has one to a server."""
        return 2 * self.connections + self.buffered_files + OTHER_DESCRIPTORS

    def fitted_to(self, descriptors: int) -> Limits:
        """The same limits, with connections and files lowered to what this number of descriptors allows."""
        files = min(self.buffered_files, descriptors // 8)
        connections = (descriptors - files - OTHER_DESCRIPTORS) // 2
        return replace(self, buffered_files=files, connections=min(self.connections, max(1, connections)))


@dataclass(frozen=True, slots=True)
class BalancerSettings:
    """One balancer. `secrets`: the first signs, all verify."""

    listen: tuple[str, int] = ("127.0.0.1", 8080)
    servers: tuple[ServerAddress, ...] = ()
    members: tuple[str, ...] = ()
    """Nodes of the servers' cluster, from which the servers are learned as they come and go; beside `servers`."""
    cluster: str = "sessile"
    """The cluster's name, as its servers are told it."""
    algorithm: str = "round-robin"
    affinity: Affinity = field(default_factory=Affinity)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    workers: int = 1
    trusted: tuple[str, ...] = ()
    """Networks whose X-Forwarded-* are believed: the proxies in front of this one."""
    proto: str = "http"
    """How clients reach this balancer, as the servers are told: http or https."""
    buffer_requests: bool = True
    """Collect a request's body before a server is asked, so that a slow client keeps no server waiting."""
    health_path: str = "/healthz"
    health: HealthPolicy = field(default_factory=HealthPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    grace_s: float = 10.0
    """How long a stopping balancer waits for requests under way."""

    def __post_init__(self) -> None:
        _require_one_of("algorithm", self.algorithm, ALGORITHMS)
        _require_one_of("proto", self.proto, ("http", "https"))
        _require_affinity(self.affinity)
        if not 1 <= self.workers <= 256:
            raise BalancerError(f"workers is {self.workers}; it must be 1 to 256")
        if self.affinity.kind in {"header", "query"} and self.workers > 1:
            raise BalancerError(
                f"affinity by {self.affinity.kind} needs workers = 1: what one worker learns from a response "
                "the other workers would not know; use affinity = cookie, or one worker"
            )
        if not self.health_path.startswith("/") or not re.fullmatch(r"[!-\"$-~]+", self.health_path):
            raise BalancerError(f"health_path {self.health_path!r} must begin with / and hold visible ASCII only")
        for network in self.trusted:
            _require_network(network)
        _require_servers(self.servers)
        for group in (self.timeouts, self.limits, self.health):
            _require_positive(group)

    @property
    def affinity_name(self) -> bytes:
        """Of the affinity cookie, header or parameter."""
        if self.has_own_cookie_name:
            return cookie_name(self.secrets[0] if self.secrets else "", self.cluster, self.listen[1])
        return self.affinity.name.encode()

    @property
    def has_own_cookie_name(self) -> bool:
        """Whether nobody named the affinity cookie, so that its name follows from what the service is."""
        return self.affinity.kind == "cookie" and not self.affinity.name

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> BalancerSettings:
        """From what a TOML file holds; `servers` is a table of name = "host:port" or {address, weight}."""
        known = {one.name for one in fields(cls)} | {"secret", *AFFINITY}
        _refuse_unknown(values, known, "")
        given = dict(values)
        if "listen" in given:
            given["listen"] = parse_address("listen", given["listen"])
        if "servers" in given:
            given["servers"] = _servers_of(given["servers"])
        _take_affinity(given)
        if "secret" in given and "secrets" in given:
            raise BalancerError("secret and secrets are both given: leave one of them out")
        for name in ("secret", "secrets"):
            if name in given:
                given["secrets"] = secrets_of(name, given.pop(name))
        if "cluster" in given:
            given["cluster"] = _read("cluster", kinds.CLUSTER_NAME, given["cluster"])
        for name in ("trusted", "members"):
            if name in given:
                given[name] = _strings(name, given[name])
        for name, group in (("health", HealthPolicy), ("timeouts", Timeouts), ("limits", Limits)):
            if name in given:
                given[name] = _group(name, group, given[name])
        for name, kind in (
            ("workers", int),
            ("grace_s", (int, float)),
            ("algorithm", str),
            ("health_path", str),
        ):
            _require_type(given, name, kind)
        if not isinstance(given.get("buffer_requests", True), bool):
            raise BalancerError(f"buffer_requests is {given['buffer_requests']!r}; it must be true or false")
        return cls(**given)

    @classmethod
    def load(cls, path: str | Path) -> BalancerSettings:
        """From a TOML file."""
        return cls.from_mapping(read_toml(path))

    def with_servers(self, servers: tuple[ServerAddress, ...]) -> BalancerSettings:
        return replace(self, servers=servers)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The file's values; unreadable or malformed raises BalancerError."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BalancerError(f"config {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BalancerError(f"config {path} is not TOML: {error}") from None


def parse_address(setting: str, text: object) -> tuple[str, int]:
    """`host:port`, IPv6 in brackets; port 0 lets the system choose (for listening only)."""
    match = (
        re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
        if isinstance(text, str)
        else None
    )
    if match is None or int(match.group(3)) > 65535:
        raise BalancerError(f"{setting}: {text!r} is not HOST:PORT, for example 127.0.0.1:8080")
    return match.group(1) or match.group(2), int(match.group(3))


def parse_server(text: str) -> ServerAddress:
    """`name=host:port[,weight=N]`, as on the command line."""
    name, equals, rest = text.partition("=")
    address, *options = rest.split(",")
    if not equals:
        raise BalancerError(f"server: {text!r} is not NAME=HOST:PORT[,weight=N], for example s1=127.0.0.1:9001")
    weight = 1
    for option in options:
        key, _, value = option.partition("=")
        if key != "weight" or not re.fullmatch(r"[0-9]{1,4}", value):
            raise BalancerError(f"server {name}: unknown option {option!r}; weight=N is the only one")
        weight = int(value)
    host, port = parse_address(f"server {name}", address)
    return ServerAddress(name, host, port, weight)


def affinity_of(text: str, *, base: Affinity | None = None) -> Affinity:
    """`cookie`, `none`, `header:NAME` or `query:NAME`."""
    kind, colon, name = text.partition(":")
    base = base or Affinity()
    if kind in {"header", "query"} and not name:
        raise BalancerError(f"affinity = {kind} needs a name: {kind}:NAME, for example {kind}:Mcp-Session-Id")
    if colon and not name:
        raise BalancerError(f"affinity: {text!r} has no name after the colon")
    return replace(base, kind=kind, name=name or base.name)


def secrets_of(label: str, value: object) -> tuple[str, ...]:
    """Secrets as the servers read theirs: the same text is the same secrets."""
    return tuple(secret.decode(errors="surrogateescape") for secret in _read(label, kinds.SECRETS, value))


def _read(label: str, kind: Kind, value: object) -> Any:
    """A value that servers and balancers must read alike."""
    try:
        return kind.read(value)
    except ValueError as error:
        raise BalancerError(f"{label} {error}") from None


def _take_affinity(given: dict[str, Any]) -> None:
    affinity = Affinity()
    if "affinity" in given:
        _require_type(given, "affinity", str)
        affinity = affinity_of(given["affinity"])
    for key, name in AFFINITY.items():
        if key in given and not (key == "cookie_name" and affinity.kind != "cookie"):
            if name != "partitioned":
                _require_type(given, key, str)
            elif not isinstance(given[key], bool):
                raise BalancerError(f"{key} is {given[key]!r}; it must be true or false")
            affinity = replace(affinity, **{name: given[key]})
        given.pop(key, None)
    given["affinity"] = affinity


def _servers_of(value: object) -> tuple[ServerAddress, ...]:
    if not isinstance(value, dict):
        raise BalancerError('servers must be a table: [servers] then NAME = "HOST:PORT"')
    servers = []
    for name, entry in value.items():
        if isinstance(entry, str):
            servers.append(ServerAddress(name, *parse_address(f"servers.{name}", entry)))
        elif isinstance(entry, dict) and "address" in entry:
            _refuse_unknown(entry, {"address", "weight"}, f"servers.{name}.")
            _require_type(entry, "weight", int)
            address = parse_address(f"servers.{name}.address", entry["address"])
            servers.append(ServerAddress(name, *address, entry.get("weight", 1)))
        else:
            raise BalancerError(f'servers.{name} must be "HOST:PORT" or {{address = "HOST:PORT", weight = N}}')
    return tuple(servers)


def _group(name: str, kind: type[Any], value: object) -> Any:
    if not isinstance(value, dict):
        raise BalancerError(f"{name} must be a table: [{name}]")
    _refuse_unknown(value, {one.name for one in fields(kind)}, f"{name}.")
    for key in value:
        _require_type(value, key, (int, float))
    return kind(**value)


def _strings(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise BalancerError(f"{name} must be a list of strings")
    return tuple(value)


def _refuse_unknown(values: Mapping[str, Any], known: set[str], prefix: str) -> None:
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
            raise BalancerError(f"unknown balancer setting {prefix}{key}{hint}")


def _require_type(values: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> None:
    if name in values and (not isinstance(values[name], kind) or isinstance(values[name], bool)):
        wanted = "a string" if kind is str else "a number"
        raise BalancerError(f"{name} is {values[name]!r}; it must be {wanted}")


def _require_one_of(name: str, value: object, choices: Collection[str]) -> None:
    if value not in choices:
        raise BalancerError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


def _require_affinity(affinity: Affinity) -> None:
    _require_one_of("affinity", affinity.kind, ("cookie", "header", "query", "none"))
    _require_one_of("affinity_refresh", affinity.refresh, ("when-needed", "always"))
    _require_one_of("affinity_secure", affinity.secure, ("auto", "always", "never"))
    _require_one_of("affinity_samesite", affinity.samesite, ("lax", "strict", "none"))
    if affinity.secure == "never" and (affinity.samesite == "none" or affinity.partitioned):
        what = "affinity_samesite = none" if affinity.samesite == "none" else "affinity_partitioned"
        raise BalancerError(
            f"{what} needs Secure, or browsers refuse the cookie: set affinity_secure to auto or always, not never"
        )
    needs_name = affinity.kind in {"header", "query"}
    if (affinity.name or needs_name) and _TOKEN.fullmatch(affinity.name) is None:
        raise BalancerError(f"affinity: {affinity.name!r} is not a name of a cookie, header or parameter")


def _require_network(text: str) -> None:
    try:
        ip_network(text)
    except ValueError:
        raise BalancerError(f"trusted: {text!r} is not an address or a network like 10.0.0.0/8") from None


def _require_servers(servers: tuple[ServerAddress, ...]) -> None:
    if len(servers) > SERVERS_MAX:
        raise BalancerError(f"{len(servers)} servers; at most {SERVERS_MAX}")
    seen: set[str] = set()
    for server in servers:
        if _NAME.fullmatch(server.name) is None:
            raise BalancerError(f"server name {server.name!r} must be letters, digits, dots, dashes, at most 63")
        if server.name in seen:
            raise BalancerError(f"two servers are called {server.name}; names must differ")
        seen.add(server.name)
        if not 1 <= server.weight <= WEIGHT_MAX:
            raise BalancerError(f"server {server.name}: weight {server.weight} is not 1 to {WEIGHT_MAX}")
        if not server.port:
            raise BalancerError(f"server {server.name}: port 0 cannot be connected to")


def _require_positive(group: Timeouts | Limits | HealthPolicy) -> None:
    for one in fields(group):
        value = getattr(group, one.name)
        if value < 0 or (value == 0 and one.name != "connections_per_loopback"):
            raise BalancerError(f"{one.name} is {value}; it must be above 0")
