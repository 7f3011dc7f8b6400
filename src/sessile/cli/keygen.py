"""Draw a cluster secret.

Every server of a cluster, and its balancer, gets the same secret. Cookies are signed with keys derived from it; it is
never sent. Keep it where you keep passwords.

Examples:
  sessile keygen
  export SESSILE_SECRET="$(sessile keygen)"
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = "draw a cluster secret"
SECRET_BYTES = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this subcommand."""
    parser.add_argument("--json", action="store_true", help='print {"secret": "..."}')


def draw() -> str:
    """A secret that a command line does not take for an option."""
    while (secret := secrets.token_urlsafe(SECRET_BYTES)).startswith("-"):
        pass
    return secret


def run(arguments: argparse.Namespace) -> int:
    """Print a secret."""
    secret = draw()
    print(json.dumps({"secret": secret}) if arguments.json else secret)
    return 0
