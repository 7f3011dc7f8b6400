"""A little history, recorded at one server in this process."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any, Final

from bench.history.harm import Harm
from bench.history.operations import Operation, Verb
from bench.history.verdict import Verdict, judge
from sessile.asgi import SessionMiddleware
from sessile.lab.app import About, DemoApp
from tests.fakes import SECRET

__all__ = ["SCRIPT", "judged", "recorded"]

SCRIPT: Final = (
    ("set", "mine"),
    ("count", "visits"),
    ("increment", "hits"),
    ("read", ""),
    ("increment", "hits"),
    ("count", "visits"),
    ("keep", "before the login"),
    ("login", ""),
    ("increment", "hits"),
    ("set", "mine"),
    ("replay", "before the login"),
    ("read", ""),
    ("keep", "before the logout"),
    ("logout", ""),
    ("replay", "before the logout"),
    ("increment", "hits"),
    ("read", ""),
)
"""One browser's requests. `keep` copies its cookies, `replay` reads with such a copy."""
STEP_MS: Final = 10


async def _ask(app: SessionMiddleware, operation: Operation) -> None:
    """Let the application answer."""
    path, _, query = operation.path.partition("?")
    headers = [(b"cookie", operation.header)] if operation.cookies else []
    scope = {"type": "http", "method": operation.method, "path": path, "query_string": query.encode()}
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({**scope, "headers": headers, "server": ("127.0.0.1", 80)}, receive, send)
    operation.status = sent[0]["status"]
    operation.told = json.loads(b"".join(message.get("body", b"") for message in sent))
    given = [value.partition(b";") for name, value in sent[0]["headers"] if name == b"set-cookie"]
    pairs = [(pair.partition(b"="), attributes) for pair, _, attributes in given]
    operation.given = {pair[0]: b"" if b"Max-Age=0" in attributes else pair[2] for pair, attributes in pairs}


def recorded() -> list[Operation]:
    """The history of `SCRIPT`; every request took some milliseconds."""

    async def play() -> list[Operation]:
        app = SessionMiddleware(DemoApp(About("s1", "sticky", "", "", "")), url="sticky://", secret=SECRET)
        jar: dict[bytes, bytes] = {}
        kept: dict[str, dict[bytes, bytes]] = {}
        operations: list[Operation] = []
        for turn, (what, name) in enumerate(SCRIPT):
            if what == "keep":
                kept[name] = dict(jar)
                continue
            verb = Verb.READ if what == "replay" else Verb(what)
            cookies = kept[name] if what == "replay" else dict(jar)
            asked = Operation(turn, verb, name, f"v{turn}", cookies, STEP_MS * turn, STEP_MS * turn + STEP_MS // 2)
            await _ask(app, asked)
            if what != "replay":
                jar.update(asked.given)
                for forgotten in [each for each, value in jar.items() if not value]:
                    del jar[forgotten]
            operations.append(asked)
        app.engine.close()
        return operations

    return asyncio.run(play())


def judged(operations: list[Operation], last: list[Operation] | None = None, harm: Harm | None = None) -> Verdict:
    """What the checkers find."""
    return judge(copy.deepcopy(operations), copy.deepcopy(last or []), harm or Harm())
