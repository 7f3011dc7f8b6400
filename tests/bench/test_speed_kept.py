"""The comparison with an earlier version takes that version out of the history, and its verdict is its bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench import before
from bench.show import CannotShow, speed_kept

if TYPE_CHECKING:
    from pathlib import Path


def test_an_earlier_version_comes_out_of_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its whole package, once; a commit that is not there is said to be missing."""
    monkeypatch.setattr(before, "BEFORE", tmp_path)
    source = before.source_of("HEAD")
    assert source == tmp_path / "HEAD" / "src" and (source / "sessile" / "engine.py").is_file()
    (source / "sessile" / "engine.py").unlink()
    assert before.source_of("HEAD") == source and not (source / "sessile" / "engine.py").exists()
    with pytest.raises(CannotShow, match="no commit 0000000"):
        before.source_of("0000000")


@pytest.mark.parametrize(("ratio", "holds"), [(1.05, True), (1.06, False)])
def test_the_verdict_is_the_bound(ratio: float, *, holds: bool) -> None:
    """Five per cent more are allowed."""
    assert speed_kept.judged("a read", ratio).holds is holds
