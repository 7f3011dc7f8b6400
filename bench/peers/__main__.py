"""One contender: `python -m bench.peers NAME CORE REDIS_PORT`, in that contender's environment.

Says `{}` once its sessions work and it is warm. Then every line on stdin, a number of seconds, is answered by one line of
JSON: what a turn of that length measured. Ends with its stdin.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

from bench.peers import turn
from bench.peers.workload import BROWSERS, MANY_BROWSERS, Browser

CONTENDERS = {
    "sessile-asgi": ("starlette", "sessile_asgi", "", BROWSERS),
    "sessile-asgi-many": ("starlette", "sessile_asgi", "", MANY_BROWSERS),
    "sessile-asgi-redis": ("starlette", "sessile_asgi", "redis", BROWSERS),
    "starlette-cookie": ("starlette", "starlette_cookie", "", BROWSERS),
    "starsessions-memory": ("starlette", "starsessions_store", "memory", BROWSERS),
    "starsessions-redis": ("starlette", "starsessions_store", "redis", BROWSERS),
    "sessile-flask": ("flask", "flask_app", "sessile", BROWSERS),
    "flask-cookie": ("flask", "flask_app", "cookie", BROWSERS),
    "flask-session-redis": ("flask", "flask_app", "redis", BROWSERS),
    "django-locmem": ("django", "django_app", "locmem", BROWSERS),
    "django-redis": ("django", "django_app", "redis", BROWSERS),
}
"""Name -> the framework, the module that builds the app with sessions, where that keeps them, and how many browsers."""


def drivers(name: str, redis_port: int) -> tuple[turn.Driver, turn.Driver]:
    """What drives the app without sessions, and the one with them."""
    framework, module_name, store, _ = CONTENDERS[name]
    module = importlib.import_module(f"bench.peers.{module_name}")
    if framework == "starlette":
        from bench.peers import asgi, starlette_app

        loop = asgi.new_loop()
        base = asgi.Driver(starlette_app.build(sessions=False), loop)
        return base, asgi.Driver(module.build(store, redis_port), loop)
    from bench.peers import wsgi

    if framework == "flask":
        return wsgi.Driver(module.without_sessions()), wsgi.Driver(module.build(store, redis_port))
    without, having = module.build_both(store, redis_port)
    return wsgi.Driver(without), wsgi.Driver(having)


def main() -> int:
    """Serve turns until stdin ends."""
    name, core, redis_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    base, peer = drivers(name, redis_port)
    browsers = [Browser() for _ in range(CONTENDERS[name][-1])]
    turn.fill(peer, browsers)
    crowd = turn.Crowd(browsers)
    turn.take(base, peer, crowd, 0.2)  # warm: caches filled, code specialised
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(turn.take(base, peer, crowd, float(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
