"""Attacks on the balancer that leave others waiting for nothing: the small form of what the show measures beside HAProxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.hostile import bystanders

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", ["evil-heads", "slow-bodies"])
def test_a_bystander_is_served(kind: str, tmp_path: Path) -> None:
    """Under attack every request of another is answered, and SIGTERM ends the balancer."""
    seen = bystanders.attack(tmp_path, "sessile", kind, 0.5)
    assert seen.served == seen.asked > 0
    assert seen.is_ended
