"""Cookies nobody issued: the middlewares survive them, and a careless middleware is found out."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from bench.hostile.cookie_cases import MAKERS, CookieCase, cookie_cases
from bench.hostile.cookie_trial import InProcess, Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS = ("asgi", "wsgi")


@pytest.mark.parametrize("kind", KINDS)
def test_no_cookie_opens_what_is_not_its_owners(kind: str) -> None:
    """Some hundreds of every kind: no exception, nobody's data, no session more, and users keep theirs."""
    trial = InProcess(kind)
    for case in cookie_cases(Random(5), trial.material, 600):
        trial.try_case(case)
    assert trial.guilts == []
    assert trial.cases == 600


@pytest.mark.parametrize("kind", KINDS)
def test_no_foreign_id_is_adopted(kind: str) -> None:
    """A write under a cookie nobody issued makes one session, under an id of the engine's own."""
    trial = InProcess(kind)
    for case in cookie_cases(Random(6), trial.material, 100):
        trial.try_write(case)
    assert trial.guilts == []
    assert trial.written > 50


def test_every_kind_of_case_is_made() -> None:
    """A few hundred cases hold each kind."""
    material = InProcess("asgi").material
    names = {case.name.split()[1] for case in cookie_cases(Random(5), material, 600)}
    assert names == {make.__name__ for make in MAKERS}


def careless(reply: Reply, error: Exception | None = None) -> list[str]:
    """What the trial finds when the middleware answers so."""
    trial = InProcess("asgi")

    def ask(app: Any, path: str, cookies: Iterable[bytes]) -> Reply:
        if error is not None:
            raise error
        return reply

    trial.ask = ask
    trial.try_case(CookieCase("forged", (b"trial=x",)))
    return [guilt.kind for guilt in trial.guilts]


def test_a_careless_middleware_is_found_out() -> None:
    """Somebody's data, a cookie for a look, an error, an exception: each is told as what it is."""
    nobody = b'{"new": true, "fields": {}}'
    assert careless(Reply(200, (), nobody)) == []
    assert careless(Reply(200, (), b'{"fields": {"who": "victim-data"}}')) == ["FOREIGN DATA"]
    assert careless(Reply(200, (b"trial=y; Path=/",), nobody)) == ["COOKIE"]
    assert careless(Reply(500, (), nobody)) == ["FOREIGN DATA"]
    assert careless(Reply(200, (), nobody), ValueError("broke")) == ["EXCEPTION"]
