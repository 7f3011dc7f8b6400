"""Each peer's own environment: a virtual environment made from its pinned requirements when it is first needed.

They live in `.cache/peers/NAME`, away from the tree's own environment, so that no peer decides which version of a
package another one, or this project, runs with. One is made anew when its requirements or the Python change.

And our own package with the balancer compiled, as a user gets it: built as a wheel and unpacked in `.cache/compiled`,
made anew when its source or the Python change. With that folder as PYTHONPATH it stands before the tree's own.
Run as a script, this makes it and prints the folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.show import CannotShow

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "bench" / "peers"
ENVIRONMENTS = ROOT / ".cache" / "peers"
COMPILED = ROOT / ".cache" / "compiled"


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


def compiled() -> Path:
    """The folder of our package with the balancer compiled; `CannotShow` with the reason where it cannot be compiled."""
    made_from = COMPILED / "made-from"
    sources = sorted([*(ROOT / "src").rglob("*.py"), ROOT / "hatch_build.py", ROOT / "pyproject.toml"])
    text = b"".join(path.read_bytes() for path in sources)
    wanted = hashlib.blake2b(text + sys.version.encode(), digest_size=16).hexdigest()
    if not (made_from.is_file() and made_from.read_text() == wanted):
        shutil.rmtree(COMPILED, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps"]
        command = [*pip, "--no-build-isolation", "--verbose", "--target", str(COMPILED), str(ROOT)]
        environment = {**os.environ, "SESSILE_COMPILE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).splitlines()
        if done.returncode:
            raise CannotShow(f"could not build the package: {said[-1] if said else 'no reason given'}")
        if not list(COMPILED.glob("sessile/balancer/client.*.so")):
            reasons = [line.strip() for line in said if "is not compiled" in line]
            raise CannotShow(reasons[0] if reasons else "the balancer is not compiled, and nothing says why")
        made_from.write_text(wanted)
    return COMPILED


def main() -> None:
    """Make the compiled package and print its folder."""
    try:
        print(compiled())
    except CannotShow as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
