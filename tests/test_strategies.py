from __future__ import annotations

from dataclasses import fields

import pytest

from sessile.errors import SettingsError
from sessile.settings import Settings
from sessile.strategies import STICKY, STRATEGIES, Guarantees
from sessile.urls import CLUSTERS


def test_the_four_strategies_have_names_of_their_own() -> None:
    """The four ways out, each once."""
    assert [strategy.name for strategy in STRATEGIES] == ["sticky", "all-to-all", "primary-backup", "store"]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_a_strategy_says_everything(strategy: Guarantees) -> None:
    """No cell of the table is empty."""
    assert all(getattr(strategy, field.name) for field in fields(strategy) if field.name != "is_available")


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_a_strategy_is_available_when_its_url_loads(strategy: Guarantees) -> None:
    """What the table calls available is what the settings accept; a cluster's settings are there before it is."""
    url, _, query = strategy.url.split("…")[0].partition("?")
    secret = "as long as a secret must be"
    if strategy.is_available or strategy.name in CLUSTERS:
        settings = Settings.load(strategy.url, secret=secret, environ={})
        assert settings.url == url
        assert settings.scheme == strategy.name
        assert bool(query) == bool(settings.members) == settings.is_cluster
    else:
        with pytest.raises(SettingsError, match="not in this version"):
            Settings.load(url=url, environ={})


def test_sticky_needs_affinity_and_survives_no_crash() -> None:
    """The strategy that exists promises no more than it can hold."""
    assert STICKY.is_available
    assert STICKY.crashes_survived.startswith("0")
    assert "affinity" in STICKY.routing
