"""The site as a server loads it before it forks: `bench.forks.served:app`. FORKS_URL is where its sessions are.

The process that loads it serves some users of its own, and goes on doing so as long as it lives, like a server's parent process
that uses sessions itself. The results of these users are written to the file FORKS_TOLD. Without that variable the parent serves
no user after the first ones.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Final

from bench.forks.process import summed, until_linked
from bench.forks.site import Site, refusing, wsgi
from bench.forks.users import User
from sessile.wsgi import SessionMiddleware

USERS: Final = 3
PAUSE_S: Final = 0.005
TOLD_EACH: Final = 10
_PARENT: Final = os.getpid()

site = Site(os.environ["FORKS_URL"])
app = refusing(SessionMiddleware(wsgi, engine=site.engines[0]))


def work(users: list[User]) -> None:
    """Serve users, and write their results down again and again."""
    path = Path(os.environ["FORKS_TOLD"])
    while os.getpid() == _PARENT:
        for _ in range(TOLD_EACH):
            for user in users:
                user.visit(site.ask)
            time.sleep(PAUSE_S)
        found, why = summed(users)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"found": found, "why": why, "disturbed": site.disturbed()}))
        fresh.rename(path)


def warm_up() -> None:
    """Some requests, and a thread that goes on with them."""
    users = [User(is_sticky=site.is_sticky) for _ in range(USERS)]
    until_linked(site, lambda: [site.ask("/who", "") for _ in site.engines])
    for user in users:
        user.visit(site.ask)
    if "FORKS_TOLD" in os.environ:
        threading.Thread(target=work, args=(users,), daemon=True).start()


warm_up()
