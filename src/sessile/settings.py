"""Settings: one frozen object, from keywords, the URL's query, the environment, a TOML file and defaults, in that order.

The dataclass fields are the whole table: each carries its kind, its default and its description, and everything else
(validation, sources, `Settings.describe` for docs and command line) loops over them. Every way of making a `Settings`
ends in the same checks, so one that exists is valid: durations are seconds, sizes are bytes, secrets are `bytes`.

An error is one line: the setting, the bad value (never a secret), the remedy. Nothing here opens a connection; the only
file read is the TOML file that was named.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from sessile import codec, kinds
from sessile.errors import SettingsError
from sessile.kinds import Kind, nearest
from sessile.strategies import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Described", "Settings"]

ENVIRONMENT_PREFIX: Final = "SESSILE_"
SCHEMES: Final = tuple(scheme for it in STRATEGIES if it.is_available for scheme in it.schemes)
SCHEMES_TO_COME: Final = ("agent", *(scheme for it in STRATEGIES if not it.is_available for scheme in it.schemes))
_NOT_OURS: Final = re.compile(r"SESSILE_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_\w+)?|DEMO_\w+)")
"""What Kubernetes sets for a Service named `sessile`, and what the demo tells its servers."""


def _split_url(value: object) -> tuple[str, dict[str, str]]:
    """The URL without its query, and the query's parameters.

    Raises ValueError as a reader of `sessile.kinds` does: never with the URL, which may hold a password.
    """
    scheme, separator, _ = value.partition("://") if isinstance(value, str) else ("", "", "")
    scheme = scheme.lower()
    if not separator or not isinstance(value, str):
        raise ValueError("is no URL with a scheme: write sticky://")
    if scheme in SCHEMES_TO_COME:
        raise ValueError(f"has the scheme {scheme}, which is not in this version: write sticky://")
    if scheme not in SCHEMES:
        raise ValueError(f"has an unknown scheme; did you mean {nearest(scheme, SCHEMES + SCHEMES_TO_COME)}://?")
    try:
        parts = urlsplit(value)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    except ValueError:
        raise ValueError("is malformed: write sticky://, or sticky://?name=value&name=value") from None
    if parts.netloc or parts.path or parts.fragment:
        raise ValueError("names a host, path or fragment, but a sticky session is nowhere but here: write sticky://")
    if len(dict(pairs)) < len(pairs):
        raise ValueError("gives a parameter twice: leave one out")
    return f"{scheme}://", dict(pairs)


def _read_url(value: object) -> str:
    url, parameters = _split_url(value)
    if parameters:
        raise ValueError("carries parameters, which only Settings.load reads")
    return url


URL: Final = Kind("URL", _read_url, is_hidden=True)


def _about(kind: Kind, description: str) -> dict[str, Any]:
    """The metadata of a setting's field."""
    return {"kind": kind, "description": description}


# -- the table ---------------------------------------------------------------------------------------------------------


class Described(NamedTuple):
    """A setting as documentation shows it."""

    name: str
    type: str
    default: str
    environment: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. Durations are seconds, sizes bytes; `Settings.load` reads every source.

    Raises:
        SettingsError: a value is malformed, or two settings contradict each other.
    """

    url: str = field(
        default="sticky://",
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
            "What all keys are derived from, the same on every server. The first signs, all verify: to change it, put "
            "the new one second everywhere, then first, then drop the old one.",
        ),
    )
    cluster: str = field(
        default="sessile",
        metadata=_about(
            kinds.text(r"[!-~]([ -~]{0,62}[!-~])?", "is no name: give up to 64 printable ASCII characters"),
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
                r"/[!-:<-~]*", "is no cookie path: give one that begins with / and is printable ASCII without ;"
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
        metadata=_about(kinds.duration("1s", "3650d"), "A session nobody used for so long is gone."),
    )
    absolute_timeout: float = field(
        default=43_200.0,
        metadata=_about(kinds.duration("1s", "3650d"), "A session so long after its creation is gone, used or not."),
    )
    rotation_grace: float = field(
        default=10.0,
        metadata=_about(
            kinds.duration("0s", "5m"),
            "For so long after a rotation the old id opens a read-only view of what was there before: requests that "
            "were under way end well.",
        ),
    )
    tombstone_keep: float = field(
        default=600.0,
        metadata=_about(
            kinds.duration("1s", "1d"),
            "How long the end of a session is remembered. Longer than any request, queue or silence between servers.",
        ),
    )
    sessions_max: int = field(
        default=1_000_000,
        metadata=_about(kinds.number(10**9), "So many sessions this server holds; beyond it refuses new ones."),
    )
    bytes_max: int = field(
        default=256 * 2**20,
        metadata=_about(kinds.size(2**40), "So many bytes of sessions this server holds; beyond it refuses new ones."),
    )
    session_bytes_max: int = field(
        default=64 * 2**10,
        metadata=_about(kinds.size(64 * 2**20), "The limit on one session, all its fields together."),
    )
    value_bytes_max: int = field(
        default=64 * 2**10,
        metadata=_about(kinds.size(codec.VALUE_BYTES_MAX), "The limit on the value of one field, encoded."),
    )
    fields_max: int = field(
        default=256,
        metadata=_about(
            kinds.number(65_535), "The limit on the fields of one session, removed ones that are remembered too."
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
        default=0.25,
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

    def __post_init__(self) -> None:
        """Read every field, then check how they fit together."""
        for name, setting in _SETTINGS.items():
            object.__setattr__(self, name, _read(setting, _Given(name, getattr(self, name))))
        for relation in _RELATIONS:
            if relation.is_broken(self):
                raise SettingsError(relation.message.format_map(self._shown()))

    def _shown(self) -> dict[str, str]:
        """Every setting as people write it; a secret as nothing."""
        return {name: setting.metadata["kind"].show(getattr(self, name)) for name, setting in _SETTINGS.items()}

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
        file = {} if config is None else _from_file(Path(config))
        environment = _from_environment(environ)
        first = {name: value for name, value in (("url", url), ("secret", secret)) if value is not None}
        named = _from_keywords(first | keywords)
        given = file | environment | named
        base, parameters = _from_url(given.get("url", _Given("url", "sticky://")))
        given = file | environment | parameters | named | {"url": _Given("url", base)}
        return cls(**{name: _read(_SETTINGS[name], value) for name, value in given.items()})

    @classmethod
    def describe(cls) -> tuple[Described, ...]:
        """Every setting, for documentation and command lines, in the order of their declaration."""
        return tuple(
            Described(
                each.name,
                each.metadata["kind"].words,
                each.metadata["kind"].show(each.default),
                _variable(each.name),
                each.metadata["description"],
            )
            for each in fields(cls)
        )


# -- how settings must fit together, and where they come from ------------------------------------------------------------


class _Relation(NamedTuple):
    """What two or more settings must not be together."""

    is_broken: Callable[[Settings], bool]
    message: str
    """With the names of settings in braces where their values stand."""


_RELATIONS: Final = (
    _Relation(
        lambda it: it.idle_timeout > it.absolute_timeout,
        "idle_timeout={idle_timeout} is longer than absolute_timeout={absolute_timeout}: shorten it or lengthen the other",
    ),
    _Relation(
        lambda it: it.tombstone_keep <= it.rotation_grace + it.ack_timeout + it.pull_timeout,
        "tombstone_keep={tombstone_keep} is not longer than rotation_grace={rotation_grace}, ack_timeout={ack_timeout} "
        "and pull_timeout={pull_timeout} together, so a late message could bring an ended session back: lengthen it",
    ),
    _Relation(
        lambda it: it.value_bytes_max > it.session_bytes_max,
        "value_bytes_max={value_bytes_max} is more than session_bytes_max={session_bytes_max}: lower it or raise the "
        "other",
    ),
    _Relation(
        lambda it: it.session_bytes_max > it.bytes_max,
        "session_bytes_max={session_bytes_max} is more than bytes_max={bytes_max}: lower it or raise the other",
    ),
    _Relation(
        lambda it: it.samesite == "none" and it.secure is False,
        "samesite=none with secure=false gives cookies that browsers refuse: set secure=auto",
    ),
    _Relation(
        lambda it: it.partitioned and it.secure is False,
        "partitioned=true with secure=false gives cookies that browsers refuse: set secure=auto",
    ),
)


class _Given(NamedTuple):
    """A value as a source gives it, and the name it has there."""

    label: str
    value: object


def _read(setting: Field[Any], given: _Given) -> Any:
    kind: Kind = setting.metadata["kind"]
    try:
        return kind.read(given.value)
    except ValueError as error:
        shown = "" if kind.is_hidden else f"={given.value!r:.80}"
        raise SettingsError(f"{given.label}{shown} {error}") from None


def _from_keywords(keywords: Mapping[str, object]) -> dict[str, _Given]:
    for name in keywords:
        _refuse_unknown(name)
    return {name: _Given(name, value) for name, value in keywords.items()}


def _from_url(given: _Given) -> tuple[str, dict[str, _Given]]:
    """The URL without its query, and the settings in the query."""
    try:
        url, parameters = _split_url(given.value)
    except ValueError as error:
        raise SettingsError(f"{given.label} {error}") from None
    for name in parameters:
        _refuse_unknown(name, of=" in the URL")
        if _SETTINGS[name].metadata["kind"].is_hidden:
            raise SettingsError(f"{name} may not stand in the URL, which is logged: give it by name")
    return url, {name: _from_text(name, f"{name} (in the URL)", text) for name, text in parameters.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    given = {}
    for label in environ:
        if label.startswith(ENVIRONMENT_PREFIX) and not _NOT_OURS.fullmatch(label):
            name = label.removeprefix(ENVIRONMENT_PREFIX).lower()
            _refuse_unknown(name, spell=_variable)
            given[name] = _from_text(name, label, environ[label])
    return given


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _from_file(path: Path) -> dict[str, _Given]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"config={str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"config={str(path)!r} is no TOML file: {error}") from None
    table = document.get("sessile", document)
    if not isinstance(table, dict):
        raise SettingsError(f"config={str(path)!r} has `sessile` as a value: write a table, [sessile]")
    for name in table:
        _refuse_unknown(name, of=f" in {path.name}")
    return {name: _Given(f"{name} (in {path.name})", value) for name, value in table.items()}


def _from_text(name: str, label: str, text: str) -> _Given:
    """A setting from a source that has only text: there, commas separate the items of a list."""
    is_list = _SETTINGS[name].metadata["kind"].is_list
    return _Given(label, [item.strip() for item in text.split(",")] if is_list else text)


def _refuse_unknown(name: str, *, of: str = "", spell: Callable[[str], str] = str) -> None:
    if name not in _SETTINGS:
        raise SettingsError(
            f"{spell(name)!r:.80}{of} is no setting; did you mean {spell(nearest(name, [*_SETTINGS]))}?"
        )


_SETTINGS: Final[Mapping[str, Field[Any]]] = {each.name: each for each in fields(Settings)}
