from __future__ import annotations

from dataclasses import fields

from sessile.keywords import Keywords
from sessile.settings import Settings


def test_every_setting_is_a_keyword_and_no_other() -> None:
    """A type checker accepts just what `Settings.load` does."""
    sources = {"config", "environ"}
    assert set(Keywords.__annotations__) - sources == {setting.name for setting in fields(Settings)}
    assert sources <= set(Keywords.__annotations__)
