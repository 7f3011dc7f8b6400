"""Loading settings in tests: from nothing but what the test gives, and the one line that a mistake ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessile.errors import SettingsError
from sessile.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "Qm2xV9tL4rYw7sKd8HnP3fJz6bGc1aTe"
ALL_TO_ALL = "all-to-all://?members=a,b"
PRIMARY_BACKUP = "primary-backup://?members=a,b"


def load(url: str | None = None, **given: Any) -> Settings:
    """`Settings.load`, from an empty environment unless one is given."""
    return Settings.load(url, **{"environ": {}, **given})


def refusal(url: str | None = None, **given: Any) -> str:
    """The message of the error that loading ends with: one line, and no secret in it."""
    with pytest.raises(SettingsError) as caught:
        load(url, **given)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


def changed(name: str, value: Any) -> Any:
    """The keyword arguments that set one setting."""
    return {name: value}


def toml(folder: Path, text: str) -> Path:
    """A file of settings."""
    path = folder / "sessile.toml"
    path.write_text(text)
    return path
