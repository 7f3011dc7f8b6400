"""The verdict over the scenarios is theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.show import tomcat_defects as promise

if TYPE_CHECKING:
    import pytest


def test_one_loss_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """All scenarios are played; one that ends badly spoils the verdict and is told in words."""
    assert promise.run(lambda _: None).holds
    monkeypatch.setattr(promise, "SCENARIOS", {"fine": lambda: "", "bad": lambda: "a write is gone"})
    shown = promise.run(lambda _: None)
    assert not shown.holds and "bad: a write is gone" in shown.notes
