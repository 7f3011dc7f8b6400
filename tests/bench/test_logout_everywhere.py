"""What `make show NAME=logout-everywhere` looks for, and that it would notice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bench.show import logout_everywhere
from bench.show.logout_everywhere import SERVERS, SESSIONS, WRITES, Found, Site, Tally, judge, lacks, looks_back, opens
from tests.bench.strategies import with_redis

EVERYWHERE = SESSIONS * SERVERS
ASKED = {
    "logouts": SESSIONS,
    "replays": EVERYWHERE * 3,
    "logins": SESSIONS + EVERYWHERE,
    "looks_back": EVERYWHERE,
    "intrusions": EVERYWHERE,
    "outdated": EVERYWHERE,
    "after_parallel": EVERYWHERE,
    "at_once": EVERYWHERE,
    "after_write": WRITES * 2,
}


def answer(key: str = "", new: bool = True, stale: bool = False, **fields: Any) -> dict[str, Any]:  # noqa: FBT001, FBT002
    return {"key": key, "new": new, "stale": stale, "fields": fields, "role": "primary"}


@pytest.mark.parametrize(
    ("told", "allowed", "is_wrong"),
    [
        (answer(), {}, False),
        (answer("new", intruder="1"), {"intruder": "1"}, False),
        (answer("old", new=False), {}, True),
        (answer("old", new=False, mine="7"), {}, True),
        (answer("other", new=False), {}, True),
        (answer(mine="7"), {}, True),
        (answer("new", intruder="1", mine="7"), {"intruder": "1"}, True),
    ],
)
def test_an_ended_session_opens_nothing(told: dict[str, Any], allowed: dict[str, Any], is_wrong: bool) -> None:  # noqa: FBT001
    """Neither itself nor its data; a new session with what was just written to it is fine."""
    assert bool(opens(told, "old", allowed)) is is_wrong


@pytest.mark.parametrize(
    ("told", "is_wrong"),
    [
        (answer("old", new=False, mine="7"), False),
        (answer(), False),
        (answer("old", new=False, mine="7", user="ann"), True),
        (answer("old", new=False, mine="8"), True),
        (answer("new", new=False, mine="7", user="ann"), True),
    ],
)
def test_a_look_back_shows_what_was_there_before_and_no_more(told: dict[str, Any], is_wrong: bool) -> None:  # noqa: FBT001
    """Never the new session, never what came into it."""
    assert bool(looks_back(told, "old", {"mine": "7"})) is is_wrong


def test_an_older_state_is_noticed() -> None:
    """A field that is not there, one that has the value of before, or an answer that says it is stale."""
    assert not lacks(answer(a="2", b="1"), {"a": "2"})
    assert lacks(answer(b="1"), {"a": "2"}) == "it lacks ['a']"
    assert lacks(answer(a="1"), {"a": "2"})
    assert lacks(answer(stale=True, a="2"), {"a": "2"})


def found(proxies: int = 0) -> Found:
    made = Found(**{name: Tally(asked) for name, asked in ASKED.items()})
    made.after_parallel.roles["proxy"] = made.after_write.roles["proxy"] = proxies
    return made


@pytest.mark.parametrize("name", [name for name in ASKED if name != "at_once"])
def test_one_answer_is_enough_to_break_the_promise(name: str) -> None:
    """A wrong one, one that failed, or one that was never asked for."""
    for strategy, proxies in (("all-to-all", 0), ("primary-backup", 1), ("store", 1)):
        assert all(figure.holds is not False for figure in judge(strategy, found(proxies)))
        for plant in ("wrong", "failed", "missing"):
            planted = found(proxies)
            tally: Tally = getattr(planted, name)
            if plant == "wrong":
                tally.wrong.append("told what it must not")
            elif plant == "failed":
                tally.failed[503] += 1
            else:
                tally.asked -= 1
            assert [figure.holds for figure in judge(strategy, planted)].count(False) == 1


def test_proxies_must_have_been_asked_where_there_are_any() -> None:
    """With every server a holder there are none."""
    for strategy in ("primary-backup", "store"):
        assert not all(figure.holds is not False for figure in judge(strategy, found()))
    assert not all(figure.holds is not False for figure in judge("all-to-all", found(1)))


class Memory(Site):
    """Three servers with one memory each, and a network that does nothing at once."""

    def __init__(self) -> None:
        super().__init__({"s1": 1, "s2": 2, "s3": 3}, Found())
        self.fields: list[dict[str, str]] = [{} for _ in self.ports]

    async def ask(self, place: int, method: str, path: str, cookies: dict[bytes, bytes]) -> tuple[int, Any]:
        fields = self.fields[place % 3]
        if path.startswith("/api/set"):
            name, _, value = path.partition("name=")[2].partition("&value=")
            fields[name] = value
        if path.startswith("/api/login"):
            fields["user"] = path.partition("user=")[2]
        if path == "/api/logout":
            fields.clear()
        cookies[b"sid"] = b"1"
        return 200, {**answer("the same", new=False), "fields": dict(fields)}


def test_servers_that_do_not_tell_each_other_are_found_out() -> None:
    """Each of the tests finds it by itself."""

    async def play() -> Found:
        site = Memory()
        await site.log_in(0)
        await site.log_out(1)
        await site.write_in_parallel(2)
        await site.write_and_read(3, 3)
        await site.look_back_late([(0, {}, "the same")])
        return site.found

    tallies = asyncio.run(play())
    for name in ASKED:
        assert getattr(tallies, name).wrong, name


@pytest.mark.parametrize("strategy", with_redis(logout_everywhere.STRATEGIES))
def test_the_promise_holds_for_a_few_sessions(monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    """The whole of it on real processes, smaller: it is shown, and every bounded figure was measured."""
    for name, value in {"SESSIONS": 6, "WRITES": 8, "REPLICATED_S": 1.0, "GRACE_S": 1.0}.items():
        monkeypatch.setattr(logout_everywhere, name, value)
    monkeypatch.setenv("SESSILE_ROTATION_GRACE", "1")
    monkeypatch.setattr(logout_everywhere, "STRATEGIES", (strategy,))
    said: list[str] = []
    shown = logout_everywhere.run(said.append)
    assert shown.holds, [figure for figure in shown.figures if figure.holds is False]
    assert sum(figure.holds is not None for figure in shown.figures) == 17
    assert len(said) == 5
