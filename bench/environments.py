"""Each peer's own environment: a virtual environment made from its pinned requirements when it is first needed.

They live in `.cache/peers/NAME`, away from the tree's own environment, so that no peer decides which version of a
package another one, or this project, runs with. One is made anew when its requirements or the Python change.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from bench.show import CannotShow

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "bench" / "peers"
ENVIRONMENTS = ROOT / ".cache" / "peers"


def fingerprint(requirements: Path) -> str:
    """What an environment was made from: it is good as long as this stays the same."""
    return hashlib.blake2b(requirements.read_bytes() + sys.version.encode(), digest_size=16).hexdigest()


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment, made if need be; `CannotShow` where its packages cannot be had."""
    requirements = REQUIREMENTS / f"{name}.txt"
    folder = ENVIRONMENTS / name
    python, made_from = folder / "bin" / "python", folder / "made-from"
    wanted = fingerprint(requirements)
    if made_from.is_file() and made_from.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"]
    for command in ([sys.executable, "-m", "venv", str(folder)], [str(python), *pip, str(requirements)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            told = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise CannotShow(f"could not make the environment of {name}: {told[-1] if told else 'no reason given'}")
    made_from.write_text(wanted)
    return python
