"""Settings: one frozen object, from keywords, the URL's query, the environment, a TOML file and defaults, in that order.

The dataclass fields are the whole table: each carries its kind, its default and its description, and everything else
(validation, sources, `Settings.describe` for docs and command line) loops over them. Every way of making a `Settings`
ends in the same checks, so one that exists is valid: durations are seconds, sizes are bytes, secrets are `bytes`.

An error is one line: the setting, the bad value (never a secret), the remedy. Nothing here opens a connection; the only
file read is the TOML file that was named.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from sessile import codec, kinds
from sessile.errors import SettingsError
from sessile.kinds import Kind
from sessile.record import WRITTEN_BYTES_MAX, WRITTEN_FIELDS_MAX
from sessile.relations import RELATIONS
from sessile.sources import Given, from_environment, from_file, from_keywords, from_url, read, variable
from sessile.urls import CLUSTERS, STORES, split_url, with_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sessile.addresses import Address, DnsName

__all__ = ["Described", "Settings"]

_LOG: Final = logging.getLogger("sessile")
_OVERRIDDEN: Final[set[str]] = set()
"""The variables of which it was said in this process that they do not count."""
SHOWN_CHARS: Final = 80
"""So much of a value goes into an error."""
URL_CHARS_MAX: Final = 4_096
STARVED_TRIP: Final = 5.0
"""The longest trip to the store of a process that gets little processor time, as a multiple of `store_timeout`."""


def _read_url(value: object) -> str:
    url, parameters = split_url(value)
    if len(url) > URL_CHARS_MAX:
        raise ValueError(
            f"is longer than {URL_CHARS_MAX} characters: name fewer hosts, from which the others are learned"
        )
    if url.partition(":")[0] in STORES:
        return with_parameters(url, parameters)
    if parameters:
        raise ValueError("carries parameters, which only Settings.load reads")
    return url


URL: Final = Kind("URL", _read_url, is_hidden=True)


def _about(kind: Kind, description: str, schemes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The metadata of a setting's field; one that names schemes may be given with no other."""
    return {"kind": kind, "description": description, "schemes": schemes}


# -- the table ---------------------------------------------------------------------------------------------------------


class Described(NamedTuple):
    """A setting as documentation shows it."""

    name: str
    type: str
    default: str
    environment: str
    description: str
    bounds: str = ""
    """The least and the most there may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. Durations are seconds, sizes bytes; `Settings.load` reads every source.

    Raises:
        SettingsError: a value is malformed, or two settings contradict each other.
    """

    url: str = field(
        default="sticky://",
        repr=False,
        metadata=_about(
            URL,
            "Who holds a session besides this server. Its query may carry any other setting but `secret`.",
        ),
    )
    secret: tuple[bytes, ...] = field(
        default=(),
        repr=False,
        metadata=_about(
            kinds.SECRETS,
            "What all keys are derived from, the same on every server and balancer; `sessile keygen` draws one. Several are a "
            "list, or stand in the environment with commas between them. The first signs, all verify: to change it, put the new "
            "one second everywhere, then first, then drop the old one. Not given: with `sticky://` each process draws one of its "
            "own, if it is first asked at an address of this machine alone; all others need it.",
        ),
    )
    cluster: str = field(
        default="sessile",
        metadata=_about(
            kinds.CLUSTER_NAME,
            "A name that goes into every derived key: services with one secret and two names refuse each other's "
            "cookies.",
        ),
    )
    cookie_name: str = field(
        default="sid",
        metadata=_about(
            kinds.COOKIE_NAME,
            "The name of the id cookie; the version cookie adds `_v`. The prefix `__Host-` is added over HTTPS.",
        ),
    )
    secure: bool | Literal["auto"] = field(
        default="auto",
        metadata=_about(
            kinds.choice("auto", True, False),
            "Whether cookies are for HTTPS only. `auto`: as the request came, or as its cookies say that it came.",
        ),
    )
    samesite: Literal["lax", "strict", "none"] = field(
        default="lax",
        metadata=_about(
            kinds.choice("lax", "strict", "none"),
            "Which requests from other sites carry the cookies. `none` needs HTTPS, and protection against forged "
            "requests.",
        ),
    )
    path: str = field(
        default="/",
        metadata=_about(
            kinds.text(
                r"/[!-:<-~]{0,1023}",
                "is no cookie path: give one that begins with / and is up to 1024 printable ASCII characters without ;, "
                "or browsers ignore it",
            ),
            "The path the cookies are sent to. Any other than `/` makes the prefix `__Secure-`: `__Host-` demands `/`.",
        ),
    )
    partitioned: bool = field(
        default=False,
        metadata=_about(
            kinds.choice(True, False),
            "Whether a page embedded in other sites gets a session of its own under each of them (CHIPS).",
        ),
    )
    idle_timeout: float = field(
        default=1_800.0,
        metadata=_about(kinds.duration("1s", "3650d"), "How long an unused session lives."),
    )
    anonymous_timeout: float = field(
        default=0.0,
        metadata=_about(
            kinds.duration("0s", "3650d"),
            "The same for sessions that no `login` has bound to a user. `0`: as long as `idle_timeout`.",
        ),
    )
    absolute_timeout: float = field(
        default=43_200.0,
        metadata=_about(kinds.duration("1s", "3650d"), "How long a session lives at most, used or not."),
    )
    rotation_grace: float = field(
        default=10.0,
        metadata=_about(
            kinds.duration("0s", "5m"),
            "How long the old id opens a read-only view of the session after a rotation: requests that "
            "were under way end well.",
        ),
    )
    tombstone_keep: float = field(
        default=600.0,
        metadata=_about(
            kinds.duration("1s", "1d"),
            "How long the tombstone of an ended session is kept: servers compare what they hold by it. After that its key is "
            "remembered until the session's own deadline. Must be longer than any silence between servers.",
        ),
    )
    sessions_max: int = field(
        default=1_000_000,
        metadata=_about(
            kinds.number(10**9),
            "The most live sessions this server holds; beyond it new ones are refused. The last tenth is kept for users who log in; for them anonymous sessions make way.",
        ),
    )
    bytes_max: int = field(
        default=256 * 2**20,
        metadata=_about(
            kinds.size(2**40),
            "The most bytes of live sessions this server holds; beyond it new ones are refused. The last tenth is kept as with `sessions_max`. Ended sessions take at most half as much again.",
        ),
    )
    session_bytes_max: int = field(
        default=64 * 2**10,
        metadata=_about(
            kinds.size(
                WRITTEN_BYTES_MAX,
                "a larger session could not be sent to other servers in one piece: keep large values elsewhere and their "
                "keys in the session",
            ),
            "The limit on one session, all its fields together.",
        ),
    )
    value_bytes_max: int = field(
        default=64 * 2**10,
        metadata=_about(
            kinds.size(codec.VALUE_BYTES_MAX, "keep the value elsewhere and its key in the session, or split it"),
            "The limit on the value of one field, encoded.",
        ),
    )
    fields_max: int = field(
        default=256,
        metadata=_about(
            kinds.number(
                WRITTEN_FIELDS_MAX,
                instead="other servers would not take a session with more: keep a few fields with a dict in each",
            ),
            "The limit on the fields of one session. Each item of a set or list that merges counts as one.",
        ),
    )
    exclude: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            kinds.PREFIXES,
            "Path prefixes that need no session, such as /static/: their requests pass untouched.",
        ),
    )
    ack: Literal["none", "one", "all"] = field(
        default="one",
        metadata=_about(
            kinds.choice("none", "one", "all"),
            "How many other holders must have confirmed a change before the response goes out.",
        ),
    )
    ack_timeout: float = field(
        default=1.0,
        metadata=_about(kinds.duration("1ms", "1m"), "How long a response waits for confirmations."),
    )
    degraded: Literal["serve", "refuse"] = field(
        default="serve",
        metadata=_about(
            kinds.choice("serve", "refuse"),
            "What happens to a response whose change was not confirmed in time: sent and counted, or 503.",
        ),
    )
    pull_timeout: float = field(
        default=1.0,
        metadata=_about(kinds.duration("1ms", "1m"), "How long a request waits for other servers to give the session."),
    )
    stale: Literal["serve", "refuse"] = field(
        default="serve",
        metadata=_about(
            kinds.choice("serve", "refuse"),
            "What happens when no server that answers has what the browser saw last: the newest there is, marked, or "
            "503.",
        ),
    )
    members: tuple[Address | DnsName, ...] = field(
        default=(),
        metadata=_about(
            kinds.MEMBERS,
            "The servers, as `host:port` with commas between them, this one too or not; the port is 7400 unless given, "
            "and IPv6 addresses stand in brackets. `dns:name:port` is every address that the name has, now and later.",
            CLUSTERS,
        ),
    )
    me: str = field(
        default="",
        metadata=_about(
            kinds.REACHABLE,
            "The `host:port` at which the others reach this server. Needed only where it cannot be found out.",
            CLUSTERS,
        ),
    )
    serves: str = field(
        default="",
        metadata=_about(
            kinds.REACHABLE,
            "The `host:port` at which balancers reach this server's app: `sessile balance --member` learns it from any "
            "member. Not given: balancers are told of the server in their own settings.",
            CLUSTERS,
        ),
    )
    node_listen: str = field(
        default="",
        metadata=_about(
            kinds.LISTENING,
            "The `host:port` at which this server takes the others' connections. Not given: the port of `me`, on every "
            "interface, or on loopback alone if `me` is there.",
            CLUSTERS,
        ),
    )
    host_id: str = field(
        default="",
        metadata=_about(
            kinds.text(r"([!-~]([ -~]{0,251}[!-~])?)?", "is no name: give up to 253 printable ASCII characters"),
            "The name of the machine: copies of a session go to distinct ones first. Not given: its host name.",
            CLUSTERS,
        ),
    )
    copies: int = field(
        default=2,
        metadata=_about(
            kinds.number(16, at_least=2), "How many servers hold a session, its primary included.", ("primary-backup",)
        ),
    )
    directory: Literal["none", "keys"] = field(
        default="none",
        metadata=_about(
            kinds.choice("none", "keys"),
            "Whether every server also knows the keys of all sessions, to list them anywhere. Nothing else needs it.",
            CLUSTERS,
        ),
    )
    tls: Literal["secret", "files", "off"] = field(
        default="secret",
        metadata=_about(
            kinds.choice("secret", "files", "off"),
            "How servers prove themselves to each other: by certificates derived from the secret, by files of yours, or, "
            "where all are on loopback, not at all.",
            CLUSTERS,
        ),
    )
    tls_cert: Path | None = field(
        default=None,
        metadata=_about(kinds.FILE, "With `tls=files`: this server's certificate, and its chain, as PEM.", CLUSTERS),
    )
    tls_key: Path | None = field(
        default=None, metadata=_about(kinds.FILE, "With `tls=files`: the certificate's private key, as PEM.", CLUSTERS)
    )
    tls_ca: Path | None = field(
        default=None,
        metadata=_about(
            kinds.FILE, "With `tls=files`: who must have signed the others' certificates, as PEM.", CLUSTERS
        ),
    )
    drain_grace: float = field(
        default=2.0,
        metadata=_about(
            kinds.duration("0s", "10m"),
            "How long a server that is told to stop goes on answering, and says that it is draining, before it stops.",
            (*CLUSTERS, *STORES),
        ),
    )
    cache: Literal["leased", "checked", "off"] = field(
        default="leased",
        metadata=_about(
            kinds.choice("leased", "checked", "off"),
            "What a server does with copies of what is in the store: serves them without asking as long as the store tells "
            "it of changes, asks each time whether they are current, or keeps none.",
            STORES,
        ),
    )
    outage: Literal["serve", "refuse"] = field(
        default="serve",
        metadata=_about(
            kinds.choice("serve", "refuse"),
            "What happens while the store is away: sessions go on from the copies that servers hold, or 503.",
            STORES,
        ),
    )
    store_timeout: float = field(
        default=1.0,
        metadata=_about(
            kinds.duration("10ms", "1m"), "How long the store may take to answer before it is away.", STORES
        ),
    )
    failover_window: float = field(
        default=60.0,
        metadata=_about(
            kinds.duration("0s", "1h"),
            "Changes of this last period are pushed again when another primary of the store takes over.",
            STORES,
        ),
    )
    beat: float = field(
        default=0.25,
        metadata=_about(
            kinds.duration("10ms", "1m"),
            "How often each server sends a beat to every other one; more often where `suspect_after` leaves little room.",
            CLUSTERS,
        ),
    )
    suspect_after: float = field(
        default=0.5,
        metadata=_about(
            kinds.duration("10ms", "10m"), "A server that has been silent for this long is not waited for.", CLUSTERS
        ),
    )
    dead_after: float = field(
        default=1.0,
        metadata=_about(
            kinds.duration("10ms", "1h"),
            "A server that has been silent for this long is no holder any more: others take its place.",
            CLUSTERS,
        ),
    )

    def __post_init__(self) -> None:
        """Read every field, then check how they fit together."""
        for name, kind in _KINDS.items():
            object.__setattr__(self, name, read(kind, Given(name, getattr(self, name))))
        changed = [name for name, setting in _SETTINGS.items() if getattr(self, name) != setting.default]
        shown = self._shown()
        _refuse_foreign(self.url, {name: Given(name, shown[name]) for name in changed})
        for relation in RELATIONS:
            if relation.is_broken(self):
                raise SettingsError(relation.message.format_map(shown))

    def _shown(self) -> dict[str, str]:
        """Every setting as people write it, in a few words; a secret as nothing."""
        shown = {name: kind.show(getattr(self, name)) for name, kind in _KINDS.items()}
        return {
            name: text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..." for name, text in shown.items()
        }

    def differing(self, other: Settings) -> list[str]:
        """The names of the settings in which another one differs from this."""
        return [name for name in _SETTINGS if getattr(self, name) != getattr(other, name)]

    def called(self, name: str) -> str:
        """As what the user gave this setting, for messages: its variable if that has this value, else the keyword."""
        label = variable(name)
        with contextlib.suppress(ValueError):
            if label in os.environ and _is_same(self, name, os.environ[label]):
                return label
        return f"{name}="

    @property
    def scheme(self) -> str:
        """The URL's scheme: which strategy it is."""
        return self.url.partition(":")[0]

    @property
    def is_cluster(self) -> bool:
        """Whether servers hold sessions for each other: `members` and a secret are there, and what else nodes need."""
        return self.scheme in CLUSTERS

    @property
    def is_store(self) -> bool:
        """Whether sessions are in a store that servers share."""
        return self.scheme in STORES

    @property
    def rotated_keep(self) -> float:
        """How many seconds the end of a rotated session can be told from a logout: `rotation_grace`, or longer.

        A rotation may not take a logout for its own end while others still confirm it. So this is longer than any end waits.
        """
        trip = STARVED_TRIP * self.store_timeout if self.is_store else 0.0
        return max(self.rotation_grace, 2 * max(self.ack_timeout, self.suspect_after + 2 * self.beat, trip))

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The secrets as bytes: the first signs, all verify. Empty when none was given."""
        return self.secret

    @classmethod
    def load(
        cls,
        url: str | None = None,
        *,
        secret: str | bytes | Sequence[str | bytes] | None = None,
        config: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] = os.environ,
        **keywords: object,
    ) -> Settings:
        """The settings from all sources; of two that name the same setting, the earlier here counts.

        Args:
            url: the strategy; its query parameters come second.
            secret: one secret, or several: the first signs, all verify.
            config: path of a TOML file: the settings by name, at the top or in a table `[sessile]`.
            environ: where `SESSILE_<NAME>` is looked up; commas separate several secrets or paths.
            keywords: any other setting by name.

        Raises:
            SettingsError: a setting is unknown, malformed, or contradicts another; the file cannot be read.
        """
        file = {} if config is None else from_file(Path(config), _KINDS)
        environment = from_environment(environ, _KINDS)
        first = {name: value for name, value in (("url", url), ("secret", secret)) if value is not None}
        named = from_keywords(first | keywords, _KINDS)
        given = file | environment | named
        base, parameters = from_url(given.get("url", Given("url", "sticky://")), _KINDS)
        given = file | environment | parameters | named | {"url": Given("url", base)}
        _refuse_foreign(base, given)
        settings = cls(**{name: read(_KINDS[name], value) for name, value in given.items()})
        _warn_of_overridden(settings, environment, parameters, named)
        return settings

    @classmethod
    def describe(cls) -> tuple[Described, ...]:
        """Every setting, for documentation and command lines, in the order of their declaration."""
        return tuple(
            Described(
                each.name,
                each.metadata["kind"].words,
                each.metadata["kind"].show(each.default),
                variable(each.name),
                each.metadata["description"] + _only_with(each.metadata["schemes"]),
                each.metadata["kind"].bounds,
            )
            for each in fields(cls)
        )


def _refuse_foreign(url: str, given: Mapping[str, Given]) -> None:
    """A setting that means nothing under this URL was given by somebody who believes it does."""
    scheme = url.partition(":")[0]
    for name, (label, value) in given.items():
        schemes = _SETTINGS[name].metadata["schemes"]
        if schemes and scheme not in schemes and value is not None and value != "":
            belongs = " and ".join(f"{each}://" for each in schemes)
            raise SettingsError(
                f"{label}={value!r:.80} belongs to {belongs}, but url is {scheme}://: change url, or leave it out"
            )


def _warn_of_overridden(settings: Settings, environment: Mapping[str, Given], *nearer: Mapping[str, Given]) -> None:
    """Say once of each variable that something nearer counts and says otherwise. It never shows a value."""
    for name, (label, value) in environment.items():
        winner = next((source[name].label for source in reversed(nearer) if name in source), None)
        if winner is None or label in _OVERRIDDEN:
            continue
        try:
            is_same = _is_same(settings, name, value)
        except ValueError:  # what does not count may be malformed
            is_same = False
        if not is_same:
            _OVERRIDDEN.add(label)
            place = "" if winner.endswith(")") else " in code"
            _LOG.warning(
                "%s does not count: %s is given%s, which counts more; leave out one of them", label, winner, place
            )


def _is_same(settings: Settings, name: str, value: object) -> bool:
    """Whether this value of a setting is the one that counts; of a URL, without its query."""
    if name == "url":
        value = from_url(Given(name, value), _KINDS)[0]
    return bool(_KINDS[name].read(value) == getattr(settings, name))


def _only_with(schemes: tuple[str, ...]) -> str:
    """What documentation adds to the description of a setting."""
    return f" Only with {' and '.join(f'`{each}://`' for each in schemes)}." if schemes else ""


_SETTINGS: Final[Mapping[str, Field[Any]]] = {each.name: each for each in fields(Settings)}
_KINDS: Final[Mapping[str, Kind]] = {name: each.metadata["kind"] for name, each in _SETTINGS.items()}
