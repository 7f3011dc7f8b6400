"""Where settings come from: keywords, the query of the URL, the environment, a TOML file.

Every source gives what it was given, by the setting's name, and says how the source calls it: so errors speak of what
people wrote. What a setting is called that there is not is refused here, with the nearest one that there is.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessile.errors import SettingsError
from sessile.kinds import items, nearest
from sessile.urls import DRIVERS, STORES, split_url, with_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sessile.kinds import Kind

    Kinds = Mapping[str, Kind]

__all__ = ["Given", "from_environment", "from_file", "from_keywords", "from_url", "read", "variable"]

ENVIRONMENT_PREFIX: Final = "SESSILE_"
_NOT_OURS: Final = re.compile(
    r"SESSILE_((\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)|DEMO_\w+|STATUS_TOKEN)"
)
"""What Kubernetes sets for Services named `sessile` or `sessile-…`, what the demo tells its servers, and the token of
`sessile.status`."""


class Given(NamedTuple):
    """A value as a source gives it, and the name it has there."""

    label: str
    value: object

    def __repr__(self) -> str:
        return f"<Given {self.label}>"


def read(kind: Kind, given: Given) -> Any:
    """The value in its one form.

    Raises:
        SettingsError: the kind refuses it. The line names it as its source does.
    """
    try:
        return kind.read(given.value)
    except ValueError as error:
        shown = "" if kind.is_hidden else f"={given.value!r:.80}"
        raise SettingsError(f"{given.label}{shown} {error}") from None


def from_keywords(keywords: Mapping[str, object], kinds: Kinds) -> dict[str, Given]:
    """Settings by name, as they are."""
    for name in keywords:
        _refuse_unknown(name, kinds)
    return {name: Given(name, value) for name, value in keywords.items()}


def from_url(given: Given, kinds: Kinds) -> tuple[str, dict[str, Given]]:
    """The URL without its query, and the settings in the query. A store's own parameters stay in its URL."""
    try:
        url, parameters = split_url(given.value)
    except ValueError as error:
        raise SettingsError(f"{given.label} {error}") from None
    if url.partition("://")[0] in STORES:
        theirs = {name: text for name, text in parameters.items() if name not in kinds or name in DRIVERS}
        parameters = {name: text for name, text in parameters.items() if name not in theirs}
        url = with_parameters(url, theirs)
    for name in parameters:
        _refuse_unknown(name, kinds, of=" in the URL")
        if kinds[name].is_hidden:
            raise SettingsError(f"{name} may not stand in the URL, which is logged: give it by name")
    return url, {name: _from_text(kinds[name], f"{name} (in the URL)", text) for name, text in parameters.items()}


def from_environment(environ: Mapping[str, str], kinds: Kinds) -> dict[str, Given]:
    """The variables `SESSILE_<NAME>`."""
    given = {}
    for label in environ:
        if label.startswith(ENVIRONMENT_PREFIX) and not _NOT_OURS.fullmatch(label):
            name = label.removeprefix(ENVIRONMENT_PREFIX).lower()
            _refuse_unknown(name, kinds, spell=variable)
            given[name] = _from_text(kinds[name], label, environ[label])
    return given


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT_PREFIX + name.upper()


def from_file(path: Path, kinds: Kinds) -> dict[str, Given]:
    """A TOML file: the settings at the top, or in a table `[sessile]`."""
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
        _refuse_unknown(name, kinds, of=f" in {path.name}")
    return {name: Given(f"{name} (in {path.name})", value) for name, value in table.items()}


def _from_text(kind: Kind, label: str, text: str) -> Given:
    """A setting from a source that has only text: there, commas separate the items of a list."""
    return Given(label, items(text) if kind.is_list else text)


def _refuse_unknown(name: str, kinds: Kinds, *, of: str = "", spell: Callable[[str], str] = str) -> None:
    if name not in kinds:
        raise SettingsError(f"{spell(name)!r:.80}{of} is no setting; did you mean {spell(nearest(name, [*kinds]))}?")
