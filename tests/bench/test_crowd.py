"""Whether the model beside each user sees what becomes of their session."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from bench import crowd
from bench.browser import Browser
from bench.crowd import Asked, User, answered_s
from bench.unharmed import ended_with_server, sessions_unharmed, wrongs


def told(key: str = "k", server: str = "a", *, stale: bool = False, **fields: Any) -> dict[str, Any]:
    """An answer of a server of the demo."""
    return {"server": server, "role": "backup", "key": key, "new": False, "stale": stale, "fields": fields}


class Scripted(Browser):
    """A browser that gets these answers, in order; None is a failure with status 502."""

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        super().__init__(1)
        self._answers = iter(answers)

    async def ask(self, method: str, path: str, *headers: str) -> tuple[int, Any]:
        del method, path, headers
        answer = next(self._answers)
        return (502, None) if answer is None else (200, answer)


def after(*answers: dict[str, Any] | None, kinds: str = "") -> User:
    """A user who did these, one letter each, and was told this: (c)ount, (r)ead."""
    user = User(Scripted(*answers), random.Random(0))

    async def run() -> None:
        for kind in kinds:
            await (user.count() if kind == "c" else user.look())

    asyncio.run(run())
    return user


def judged(user: User) -> tuple[int, int, int, int]:
    return user.changes_lost, user.sessions_lost, user.executed_twice, user.stale


@pytest.mark.parametrize(
    ("answers", "kinds", "expected"),
    [
        ([told(count=1), told(count=2), told(count=2)], "ccr", (0, 0, 0, 0)),
        ([told(count=1), told(count=1)], "cc", (1, 0, 0, 0)),
        ([told(count=1), told()], "cr", (1, 0, 0, 0)),
        ([told(count=1), told(count=3)], "cc", (0, 0, 1, 0)),
        ([told(count=1), told(count=1, last="somebody else's")], "cr", (1, 0, 0, 0)),
        ([told(count=1), told(key="")], "cr", (0, 1, 0, 0)),
        ([told(count=1), told(key="j", count=1)], "cc", (0, 1, 0, 0)),
        ([told(count=1), told(count=1, stale=True)], "cr", (0, 0, 0, 1)),
        ([told(count=1), None, told(count=1)], "ccr", (0, 0, 0, 0)),
        ([told(count=1), None, told(count=2)], "ccr", (0, 0, 0, 0)),
        ([told(count=1), None, told(count=3)], "ccr", (0, 0, 1, 0)),
        ([told(count=1), None, told()], "ccr", (1, 0, 0, 0)),
        ([told(count=1), None, told(count=1), told(count=2)], "ccrr", (0, 0, 0, 0)),
        ([told(count=1), None, told(count=1), told(count=3)], "ccrr", (0, 0, 1, 0)),
        ([told(count=1), None, told(count=1), told(count=2), told(count=1)], "ccrrr", (1, 0, 0, 0)),
        ([told(count=1), None, told(count=1), told(count=2), told(count=3)], "ccrrr", (0, 0, 1, 0)),
        ([told(count=1), None, told(count=1), told(count=2), told(count=3)], "ccrcr", (0, 0, 0, 0)),
        ([told(count=1), None, told(count=2), told(count=1)], "ccrr", (1, 0, 0, 0)),
        ([told(count=1), None, None, told(count=3)], "cccr", (0, 0, 0, 0)),
        ([told(count=1), None, None, told(count=4)], "cccr", (0, 0, 1, 0)),
        ([told(count=1), None, told(count=3)], "ccc", (0, 0, 0, 0)),
        ([told(count=1), None, told(count=1)], "crr", (0, 0, 0, 0)),
    ],
)
def test_an_answer_is_compared_with_all_that_may_be(
    answers: list[dict[str, Any] | None], kinds: str, expected: tuple[int, int, int, int]
) -> None:
    """A failed change may have been executed or not, until the next answer tells; anything else is lost, or once too often."""
    user = after(*answers, kinds=kinds)
    assert judged(user) == expected
    assert all(figure.holds for figure in sessions_unharmed([user])) is (expected == (0, 0, 0, 0))
    assert bool(user.wrongs) is any(expected[:3])


def test_a_change_in_doubt_may_come_late_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted when it shows after an answer without it; after a while it would be something executed out of nowhere."""
    answers = [told(count=1), None, told(count=1), told(count=2)]
    assert (after(*answers, kinds="ccrr").late, after(*answers[:2], answers[3], kinds="ccr").late) == (1, 0)
    monkeypatch.setattr(crowd, "LATE_S", 0.0)
    user = after(*answers, kinds="ccrr")
    assert (user.late, judged(user)) == (0, (0, 0, 1, 0)) and "POST 502" in user.wrongs[0]


def test_every_request_is_remembered_as_its_user_saw_it() -> None:
    """When it began and ended, how, and who answered."""
    user = after(told(server="b", count=1), None, told(server="c", count=1), kinds="crr")
    assert [(one.method, one.status, one.server) for one in user.asked] == [
        ("POST", 200, "b"), ("GET", 502, ""), ("GET", 200, "c"),
    ]  # fmt: skip
    assert all(0 <= one.seconds < 5 for one in user.asked)


def test_the_first_good_answer_to_a_request_sent_since_then_counts() -> None:
    """One that was under way before, or failed, does not."""
    user = after()
    user.asked = [
        Asked(1.0, 5.0, "GET", 200, "a"), Asked(6.0, 7.0, "POST", 502, ""), Asked(8.0, 9.0, "GET", 200, "a"),
        Asked(10.0, 11.0, "GET", 200, "a"),
    ]  # fmt: skip
    assert (answered_s(user, 1.0), answered_s(user, 2.0), answered_s(user, 9.5), answered_s(user, 12)) == (
        5,
        9,
        11,
        None,
    )


@pytest.mark.parametrize(
    ("method", "status", "excused"),
    [("POST", 502, True), ("POST", 0, True), ("POST", 503, False), ("POST", 504, False), ("GET", 502, False)],
)
def test_what_may_not_be_repeated_may_end_with_its_server(method: str, status: int, excused: bool) -> None:  # noqa: FBT001
    """And is told as that; any other failure is put into words."""
    user = after()
    user.asked = [Asked(1.0, 2.0, method, status, "")]
    assert ended_with_server(user.asked[0]) is excused
    assert bool(wrongs("s", [user])) is not excused
