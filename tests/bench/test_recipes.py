"""What `make show NAME=recipes` counts, and that it would notice; the recipes themselves with `make test-full`."""

from __future__ import annotations

import asyncio
import http.client
from random import Random
from typing import Any

import pytest

from bench.browser import Browser
from bench.recipes import BALANCERS, Asked, Shopper, Site, site
from bench.show import recipes
from bench.show.recipes import KILLS, RESTARTS, Play, judge

GOOD = Asked("GET", 200, 0.1)


def shopper(*answers: dict[str, Any], sent: int = 3, bought: int = 2) -> Shopper:
    """A user whose POSTs were answered as told, and then saw these answers."""
    names = [f"u-{number}" for number in range(sent)]
    user = Shopper("u", Browser(0), Random(0), sent=set(names), bought=set(names[:bought]))
    for answer in answers:
        user.judge(answer)
    return user


def told(*numbers: int, visits: int | None = None) -> dict[str, Any]:
    """What the app says of a cart with these items."""
    return {"cart": [f"u-{number}" for number in numbers], "visits": len(numbers) if visits is None else visits}


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([told(0, 1)], (0, 0, 0)),
        ([told(0, 1, 2)], (0, 0, 0)),  # the third may have been executed
        ([told(1, 0), told(0, 1)], (0, 0, 0)),
        ([told(0)], (0, 1, 0)),
        ([told()], (1, 0, 0)),
        ([told(0, 1, visits=3)], (0, 0, 1)),
        ([told(0, 1, visits=3), told(0, 1, visits=3)], (0, 0, 1)),  # once
        ([told(0, 1, 1)], (0, 0, 1)),
        ([told(0, 1, visits=1)], (0, 1, 0)),
        ([told(0, 1, 7)], (1, 0, 0)),  # somebody else's
    ],
)
def test_what_an_answer_says(answers: list[dict[str, Any]], found: tuple[int, int, int]) -> None:
    """Sessions lost, changes lost, executed twice."""
    user = shopper(*answers)
    assert (user.sessions_lost, user.changes_lost, user.executed_twice) == found
    assert bool(user.wrongs) is (found != (0, 0, 0))


def played(**more: Any) -> Play:
    """A run of which all is good but what is named."""
    whole: dict[str, Any] = {"users": [shopper()], "restarts": RESTARTS * 3, "kills": KILLS * 3}
    return Play(**{**whole, "restarted": [GOOD], "killed": [GOOD], **more})


@pytest.mark.parametrize(
    ("play", "holds"),
    [
        (played(), True),
        (played(killed=[Asked("POST", 502, 0.1)]), True),
        (played(killed=[Asked("POST", 0, 0.1, was_answered=False)]), False),
        (played(killed=[Asked("GET", 0, 0.1, was_answered=False)]), False),
        (played(killed=[Asked("GET", 0, 0.1, was_answered=True)]), True),
        (played(killed=[Asked("GET", 502, 0.1)]), False),
        (played(restarted=[Asked("GET", 503, 0.1)]), False),
        (played(restarted=[Asked("GET", 0, 0.1)]), False),
        (played(restarts=RESTARTS * 3 - 1), False),
        (played(kills=KILLS * 3 - 1), False),
        (played(out_of_order=1), False),
        (played(moved_for_nothing=1), False),
        (played(users=[shopper(told())]), False),
        (played(users=[shopper(told(0))]), False),
        (played(users=[shopper(told(0, 1, visits=3))]), False),
    ],
)
def test_one_is_enough_to_break_the_promise(play: Play, holds: bool) -> None:  # noqa: FBT001 - a table's column
    """A GET that fails, a session, a change or a server that is lost, a POST that is executed twice or may be sent again."""
    assert all(figure.holds for figure in judge(play) if figure.holds is not None) is holds


@pytest.mark.slow
@pytest.mark.needs("nginx", "haproxy")
def test_the_promise_holds_for_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it, smaller: both recipes, each server restarted once and killed once."""
    monkeypatch.setattr(recipes, "USERS", 24)
    monkeypatch.setattr(recipes, "RESTARTS", 1)
    monkeypatch.setattr(recipes, "KILLS", 1)
    said: list[str] = []
    shown = recipes.run(said.append)
    assert shown.holds, ([figure for figure in shown.figures if figure.holds is False], shown.notes)
    assert len(said) == 2 * 6


def ask(port: int, method: str, path: str, cookies: dict[str, str]) -> tuple[int, dict[str, str]]:
    """One request over a connection of its own; the cookies that its answer sets, with their attributes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        head = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
        connection.request(method, path, headers=head)
        answer = connection.getresponse()
        answer.read()
        pairs = (each.split("=", 1) for each in answer.headers.get_all("Set-Cookie") or ())
        return answer.status, {name: value for name, value in pairs if name.lower() == "srv"}
    finally:
        connection.close()


async def affinity(balancer: str) -> None:
    """Every answer names the server, an error's, too; a known one is not named again; a made-up one is replaced."""

    async def asked(running: Site, path: str, **cookies: str) -> tuple[int, dict[str, str]]:
        return await asyncio.to_thread(ask, running.port, "GET", path, cookies)

    async with site(balancer) as running:
        status, given = await asked(running, "/none")
        assert (status, len(given)) == (404, 1)
        ((name, value),) = given.items()
        home, _, attributes = value.partition(";")
        assert home in {"web1", "web2", "web3"}
        assert {"httponly", "samesite=lax"} <= {each.strip().lower() for each in attributes.split(";")}
        assert await asked(running, "/none", **{name: home}) == (404, {})
        status, given = await asked(running, "/cart", **{name: "web9"})
        assert status == 200 and given[name].partition(";")[0] in {"web1", "web2", "web3"}
        await running.servers[int(home[-1]) - 1].kill()
        status, given = await asked(running, "/cart", **{name: home})
        assert status == 200 and given[name].partition(";")[0] in {"web1", "web2", "web3"} - {home}


@pytest.mark.slow
@pytest.mark.needs("nginx", "haproxy")
@pytest.mark.parametrize("balancer", BALANCERS)
def test_the_affinity_of_a_recipe(balancer: str) -> None:
    """A user stays on a server as long as it lives, and then on another."""
    asyncio.run(affinity(balancer))
