"""Servers and browsers of `session-life`: engines that share sessions by a real strategy, and tabs that ask them.

The engines run in this process, on one event loop, with real links and real stores. A tab does what an adapter does with a
request: open, prepare, handle, commit, settle, cookies.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Any, Final

from bench.browser import HOST
from bench.ending.stores import STRATEGIES, opened
from bench.members import node_ports
from bench.show import CannotShow
from sessile.engine import Engine
from sessile.errors import SessionConflict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sessile.session import Session

__all__ = ["CLUSTERS", "Tab", "servers", "within"]

CLUSTERS: Final = ("all-to-all", "primary-backup")
READY_S: Final = 20.0
LOOK_AGAIN_S: Final = 0.02


class Tab:
    """One tab of a browser."""

    def __init__(self, cookies: dict[str, str] | None = None) -> None:
        self.cookies = dict(cookies or {})
        self.given: list[str] = []
        """The names of the cookies that the last answer set."""

    def copy(self) -> Tab:
        return Tab(self.cookies)

    async def open(self, engine: Engine, *, is_lasting: bool = False) -> Session:
        """The session of a request that begins now."""
        header = "; ".join(f"{name}={value}" for name, value in self.cookies.items()).encode()
        session = engine.open((header,) if header else (), is_https=False, is_lasting=is_lasting)
        await engine.prepare(session)
        return session

    async def finish(self, engine: Engine, session: Session, do: Callable[[Session], object]) -> bool:
        """Handle the request and answer it; returns whether it was answered as the handler wished."""
        try:
            do(session)
            await engine.settle(engine.commit(session)) if engine.backend is not None else engine.commit(session)
            cookies, is_done = engine.cookies(session), True
        except SessionConflict:
            cookies, is_done = engine.refusal_cookies(session), False
        self.given = []
        for cookie in cookies:
            pair, _, attributes = cookie.decode().partition(";")
            name, _, value = pair.partition("=")
            self.given.append(name)
            self.cookies.pop(name, None)
            if "max-age=0" not in attributes.lower():
                self.cookies[name] = value
        return is_done

    async def ask(self, engine: Engine, do: Callable[[Session], object]) -> bool:
        """A whole request."""
        return await self.finish(engine, await self.open(engine), do)

    async def look(self, engine: Engine) -> tuple[str | None, dict[str, Any]]:
        """Whom the session belongs to, and its fields."""
        found: list[tuple[str | None, dict[str, Any]]] = []
        await self.ask(engine, lambda session: found.append((session.subject, dict(session))))
        return found[0]


@contextlib.asynccontextmanager
async def servers(strategy: str, **settings: Any) -> AsyncIterator[list[Engine]]:
    """Two servers of a strategy, linked or with their store; with `sticky://` one, twice."""
    with opened(STRATEGIES[strategy]) as (url, _):
        places = [f"{HOST}:{port}" for port in node_ports(2)]
        common = {"secret": secrets.token_urlsafe(32), **settings, **STRATEGIES[strategy].settings}
        engines = []
        for me in places if strategy != "sticky" else places[:1]:
            where = {"url": url, "members": places, "me": me} if strategy in CLUSTERS else {"url": url}
            engines.append(Engine(**common, **where))
        try:
            for engine in engines:
                if engine.backend is not None:
                    await engine.backend.start()
            if not await within(READY_S, lambda: all(map(_is_ready, engines))):
                raise CannotShow(f"the servers of {strategy} did not get ready within {READY_S:g} s")
            yield engines * (3 - len(engines))
        finally:
            for engine in engines:
                if engine.backend is not None:
                    await engine.backend.stop()
                engine.close()


def _is_ready(engine: Engine) -> bool:
    if engine.backend is None:
        return True
    status = engine.backend.status()
    if "members" in status:
        return list(status["members"].values()) == ["alive"]
    return bool(
        status["state"] == "ready" and (status["channel"] == "up" or not engine.settings.url.startswith("redis"))
    )


async def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait until the condition is true; returns False if it is not in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  # of several servers at once
                await asyncio.sleep(LOOK_AGAIN_S)
            return True
    return False
