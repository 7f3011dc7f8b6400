"""What `make show NAME=forks` counts, that it would notice, and that the promise holds for a few forks."""

from __future__ import annotations

from typing import Any

import pytest

from bench.forks.process import Threads
from bench.forks.servers import WITHOUT_PARENT
from bench.forks.users import FAILED, REFUSED, RIGHT, UNKNOWN, WRONG, Answer, User, verdict
from bench.show.forks import CLUSTERS, KINDS, MULTIPROCESSING, PEERS, STRATEGIES, judge, play, row

GOOD: dict[str, Any] = {"found": {RIGHT: 500}, "why": [], "runs": 50, "disturbed": []}
NEEDS = {"Redis": "redis-server", "PostgreSQL": "postgres"}
REFUSAL = "the port is taken: run one worker for each server (--workers 1), or give every process a me= of its own"


@pytest.mark.parametrize(
    ("answer", "is_sticky", "came"),
    [
        (Answer(200, [], '{"pid": 1, "user": "ann"}'), False, RIGHT),
        (Answer(200, [], '{"pid": 1, "user": "bob"}'), False, WRONG),
        (Answer(200, [], '{"pid": 2, "user": null}'), False, FAILED),
        (Answer(200, [], '{"pid": 2, "user": null}'), True, UNKNOWN),
        (Answer(200, [], '{"pid": 1, "user": null}'), True, FAILED),
        (Answer(200, [], '{"pid": 2, "user": "bob"}'), True, WRONG),
        (Answer(503, [], "no"), False, FAILED),
        (Answer(500, [], REFUSAL), False, REFUSED),
    ],
)
def test_what_an_answer_is(answer: Answer, is_sticky: bool, came: str) -> None:  # noqa: FBT001
    """To ann, whose session the process 1 knows."""
    assert verdict(answer, "ann", {1}, is_sticky=is_sticky) == came


def test_who_is_unknown_logs_in_again_and_who_fails_is_asked_why() -> None:
    """A visit that raises is one that failed."""
    user = User(is_sticky=True, cookies={"sid": "x"})
    user.visit(lambda *_: Answer(200, [], '{"pid": 2, "user": null}'))
    assert user.path().startswith("/login")
    user.visit(lambda *_: Answer(200, ["sid=y; Path=/"], f'{{"pid": 3, "user": "{user.name}"}}'))
    assert (user.cookie, user.pids, user.path()) == ("sid=y", {3}, "/who")

    def fail(*_: str) -> Answer:
        raise OSError("away")

    user.visit(fail)
    assert user.found == {UNKNOWN: 1, RIGHT: 1, FAILED: 1} and "away" in user.why


@pytest.mark.parametrize(
    ("kind", "strategy", "change", "holds"),
    [
        (MULTIPROCESSING, "Redis", {}, True),
        (MULTIPROCESSING, "Redis", {"found": {RIGHT: 500, WRONG: 1}}, False),
        (MULTIPROCESSING, "Redis", {"found": {RIGHT: 500, FAILED: 1}}, False),
        (MULTIPROCESSING, "Redis", {"found": {RIGHT: 500, REFUSED: 1}}, False),
        (MULTIPROCESSING, "all-to-all", {"found": {RIGHT: 500, REFUSED: 1}}, True),
        (MULTIPROCESSING, "all-to-all", {"disturbed": ["x is dead"]}, False),
        (MULTIPROCESSING, "Redis", {"runs": 49}, False),
        (MULTIPROCESSING, "Redis", {"found": {}}, False),
        (WITHOUT_PARENT, "Redis", {"found": {RIGHT: 500, FAILED: 1}}, True),
        (WITHOUT_PARENT, "Redis", {"found": {RIGHT: 500, WRONG: 1}}, False),
    ],
)
def test_one_of_each_is_enough(kind: str, strategy: str, change: dict[str, Any], holds: bool) -> None:  # noqa: FBT001
    """Whatever is promised is judged by itself."""
    told = {**GOOD, **change}
    assert all(figure.holds for figure in judge(kind, strategy, told, 50) if figure.holds is not None) is holds
    assert row("x", told).startswith(f"x: {told['runs']} forks; ")


def test_every_way_and_every_peer_is_played() -> None:
    """With the requirements that it takes."""
    from bench import environments
    from bench.forks import peer

    assert len(KINDS) == 4 and set(CLUSTERS) < set(STRATEGIES)
    for name, environment in [*PEERS.values(), (None, "uwsgi")]:
        assert (environments.REQUIREMENTS / f"{environment}.txt").is_file()
        assert name is None or name in peer.PEERS


def test_a_process_that_shares_a_connection_is_found_out() -> None:
    """A store whose replies are whoever's reads first: what this is there to find."""
    import os
    import socket
    import threading

    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    lock = threading.Lock()

    def echo() -> None:
        while said := theirs.recv(1000):
            theirs.send(said)

    threading.Thread(target=echo, daemon=True).start()

    def ask(path: str, cookie: str) -> Answer:
        name = path.partition("user=")[2] or cookie.partition("=")[2]
        with lock:
            ours.send(name.encode())
            ours.settimeout(1.0)
            found = ours.recv(1000).decode()
        return Answer(200, [f"sid={name}"], f'{{"pid": {os.getpid()}, "user": "{found}"}}')

    plays = (Threads(ask, is_sticky=False).play(2).found for _ in range(20))
    is_found = any(found[WRONG] + found[FAILED] for found in plays)
    theirs.close()
    ours.close()
    assert is_found


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(
            each, marks=[pytest.mark.needs(program) for name, program in NEEDS.items() if each.startswith(name)]
        )
        for each in STRATEGIES
    ],
)
def test_the_promise_holds_for_a_few_forks(strategy: str) -> None:
    """Under threads, asyncio and uvloop."""
    told = play(MULTIPROCESSING, strategy, 6)
    assert all(figure.holds for figure in judge(MULTIPROCESSING, strategy, told, 6)), told


@pytest.mark.needs("redis-server")
@pytest.mark.parametrize("strategy", ["sticky", "Redis, cache=checked"])
def test_the_promise_holds_under_gunicorn(strategy: str) -> None:
    """Loaded, and warm, before it forks."""
    told = play("gunicorn --preload", strategy, 4)
    assert all(figure.holds for figure in judge("gunicorn --preload", strategy, told, 4)), told
