"""What a request that leaves a trace can be told by, later and elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2

from sessile.asgi import SessionMiddleware
from sessile.lab.app import About, DemoApp
from tests.fakes import SECRET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ABOUT = About("s1", "sticky", "round-robin", "http://127.0.0.1:8081/", "1")


def play(scenario: Callable[[httpx2.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        sessions = SessionMiddleware(DemoApp(ABOUT), url="sticky://", secret=SECRET)
        transport = httpx2.ASGITransport(app=sessions)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as browser:
            await scenario(browser)
        sessions.engine.close()

    asyncio.run(main())


async def post(browser: httpx2.AsyncClient, path: str) -> dict[str, Any]:
    told: dict[str, Any] = (await browser.post(path)).json()
    return told


def test_every_write_names_the_one_it_builds_on() -> None:
    """The first builds on nothing; each trace keeps the stamp of its write, and the version covers them all."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        first = (await post(browser, "/api/count?name=n&trace=op-1"))["after"]
        assert (first["fields"], first["heads"]) == ({"n": 1, "op-1": ""}, first["stamps"]["op-1"])
        told = await post(browser, "/api/increment?name=n&trace=op-2")
        second = told["after"]
        assert told["before"] == first
        assert second["fields"] == told["fields"] == {"n": 2, "op-1": "", "op-2": first["heads"]}
        assert second["stamps"] == {"op-1": first["heads"], "op-2": second["heads"]}
        counter, _, writer = second["heads"].partition("@")
        assert second["version"] == {writer: int(counter)} == {writer: 2}
        assert (second["key"], second["subject"]) == (told["key"], "")
        read: dict[str, Any] = (await browser.get("/api/session?trace=1")).json()
        assert read["before"] == second
        assert "after" not in read
        assert "before" not in (await browser.get("/api/session")).json()

    play(scenario)


def test_a_login_carries_traces_over_and_a_logout_leaves_none() -> None:
    """Under the new id they stand under the stamp of its birth; an ended session tells nothing."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        await post(browser, "/api/count?name=n&trace=op-1")
        old = dict(browser.cookies)
        login = (await post(browser, "/api/login?user=ann&trace=op-2"))["after"]
        assert login["stamps"] == dict.fromkeys(("op-1", "op-2"), login["heads"])
        assert login["subject"] == "ann"
        logout = await post(browser, "/api/logout?trace=op-3")
        assert logout["before"] == login
        assert (logout["after"]["key"], logout["after"]["fields"], logout["after"]["version"]) == ("", {}, {})
        browser.cookies = httpx2.Cookies(old)
        back: dict[str, Any] = (await browser.get("/api/session?trace=1")).json()["before"]
        assert (back["read_only"], list(back["fields"])) == (True, ["n", "op-1"])

    play(scenario)


def test_a_trace_that_is_none_is_refused() -> None:
    """Its name must not be one that a user's field may have."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        assert (await browser.post("/api/count?name=n&trace=n")).status_code == 400

    play(scenario)
