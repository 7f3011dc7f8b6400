"""A demo that runs for a measurement."""

from __future__ import annotations

import asyncio

import pytest

from bench.browser import Browser
from bench.running import demo
from bench.show import CannotShow


def test_a_demo_that_does_not_start_is_no_figure() -> None:
    """It is said that nothing could be shown, and why."""

    async def start() -> None:
        async with demo(routing="sticky", servers=0):
            pass

    with pytest.raises(CannotShow, match=r"did not start: .*--servers 0"):
        asyncio.run(start())


def test_servers_are_reached_with_and_without_the_balancer() -> None:
    """A session that one server of a cluster made is there on the other; what the control API refuses is an error."""

    async def look() -> None:
        async with demo(routing="round-robin", servers=2, strategy="all-to-all") as running:
            browser = Browser(running.port)
            assert await browser.ask("POST", "/api/set?name=a&value=1")
            for name, port in (await running.server_ports()).items():
                browser.close()
                browser.port = port
                status, told = await browser.ask("GET", "/api/session")
                assert (status, told["server"], told["fields"]) == (200, name, {"a": "1"})
            with pytest.raises(CannotShow, match="409"):
                await running.act("s1", "resume")
            browser.close()

    asyncio.run(look())
