from __future__ import annotations

import subprocess
import sys

from sessile import __version__


def test_python_dash_m_is_the_command() -> None:
    """Same name, same exit status."""
    command = [sys.executable, "-m", "sessile"]
    shown = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"sessile {__version__}\n"
    assert subprocess.run([*command, "nothing"], capture_output=True, check=False).returncode == 2
    refused = subprocess.run([*command, "demo", "--servers", "0"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
