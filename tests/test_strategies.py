from __future__ import annotations

from dataclasses import fields

import pytest

from sessile.settings import Settings
from sessile.strategies import STICKY, STRATEGIES, Guarantees


def test_the_four_strategies_have_names_of_their_own() -> None:
    """The four ways out, each once."""
    assert [strategy.name for strategy in STRATEGIES] == ["sticky", "all-to-all", "primary-backup", "store"]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_a_strategy_says_everything(strategy: Guarantees) -> None:
    """No cell of the table is empty."""
    assert all(getattr(strategy, field.name) for field in fields(strategy) if field.name != "is_available")


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_a_strategy_is_available_when_its_url_loads(strategy: Guarantees) -> None:
    """What the table calls available is what the settings accept, each of its schemes."""
    secret = "as long as a secret must be"
    assert strategy.is_available
    for scheme in strategy.schemes:
        if strategy.name == "store":
            settings = Settings.load(f"{scheme}://host/name", secret=secret, environ={})
            assert (settings.url, settings.is_store) == (f"{scheme}://host/name", True)
            continue
        url, _, query = strategy.url.partition("?")
        settings = Settings.load(strategy.url, secret=secret, environ={})
        assert (settings.url, settings.scheme) == (url, scheme)
        assert bool(query) == bool(settings.members) == settings.is_cluster


def test_sticky_needs_affinity_and_survives_no_crash() -> None:
    """The strategy that exists promises no more than it can hold."""
    assert STICKY.is_available
    assert STICKY.crashes_survived.startswith("0")
    assert "affinity" in STICKY.routing
