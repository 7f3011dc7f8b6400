"""The source of an earlier version of this project, from the history, to be measured beside the present one."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

from bench.environments import ROOT
from bench.show import CannotShow

if TYPE_CHECKING:
    from pathlib import Path

BEFORE = ROOT / ".cache" / "before"


def source_of(commit: str) -> Path:
    """The folder that holds the package `sessile` of an earlier commit; `CannotShow` where the history lacks it."""
    folder = BEFORE / commit / "src"
    if not folder.is_dir():
        command = ["git", "archive", "--format=tar", commit, "src"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        if done.returncode:
            raise CannotShow(f"this checkout has no commit {commit}: clone it with its history")
        shutil.rmtree(folder.parent, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            for member in archive:
                data = archive.extractfile(member)
                if data is not None:
                    path = folder.parent / member.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data.read())
    return folder
