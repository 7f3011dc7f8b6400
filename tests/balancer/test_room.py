"""What is left for all clients of a worker: files that are counted, and a warning where none can be made."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from sessile.balancer.room import Room

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_files_are_counted() -> None:
    """No more than there may be, and none for more bytes than are left."""
    room = Room(100, 2, lambda reason: None)
    assert room.file(101) is None
    files = [room.file(100) for _ in range(3)]
    assert [file is not None for file in files] == [True, True, False] and room.files == 0
    for file in files:
        if file is not None:
            file.close()


def test_a_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the remedy; no file is counted."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    told: list[str] = []
    room = Room(100, 2, told.append)
    assert room.file(1) is None and room.files == 2
    assert str(tmp_path / "gone") in told[0] and "TMPDIR" in told[0]
