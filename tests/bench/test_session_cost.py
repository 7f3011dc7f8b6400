"""The harness that compares what sessions cost: it must see what is there, and refuse what is no session."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bench import environments, session_cost
from bench.peers import asgi, turn, workload, wsgi
from bench.peers.__main__ import CONTENDERS as KNOWN
from bench.peers.workload import Browser
from bench.redis_server import answers, redis_server
from bench.session_cost import CONTENDERS, Contender, Rounds
from bench.show import CannotShow
from bench.show import session_cost as promise

ROOT = Path(__file__).resolve().parents[2]


def turn_of(read_us: float, write_us: float) -> dict[str, dict[str, float]]:
    kinds = {"read": read_us, "write": write_us}
    return {
        kind: {"base_cpu_us": 10.0, "added_cpu_us": us, "base_wall_us": 10.0, "added_wall_us": us}
        for kind, us in kinds.items()
    }


class Sessions:
    """A contender in one dict; its flaws are what tests give it."""

    def __init__(self, *, forgets: bool = False, shares: bool = False, trusts: bool = False, burns: int = 0) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.forgets, self.shares, self.trusts, self.burns = forgets, shares, trusts, burns

    def ask(self, path: str, browser: Browser) -> str:
        key = browser.jar.get("id")
        if key is not None and key not in self.kept and self.trusts:
            key = next(iter(self.kept))
        elif key is None or key not in self.kept:
            key = f"{len(self.kept):0>8}"
            browser.set_cookie(f"id={key}; Path=/")
            self.kept[key] = {}
        data = self.kept["00000000" if self.shares else key]
        answer = workload.HANDLERS[path](data)
        if self.forgets:
            data.clear()
        return answer

    def repeat(self, path: str, browsers: list[Browser], times: int) -> None:
        for _ in range(times):
            for browser in browsers:
                self.ask(path, browser)
                sum(range(self.burns))


def test_the_session_is_the_one_the_baselines_were_taken_with() -> None:
    """Five keys, 285 bytes as JSON."""
    assert len(workload.DATA) == 5
    assert len(json.dumps(workload.DATA)) == 285


def test_a_browser_keeps_replaces_and_forgets_cookies() -> None:
    """What an answer sets is presented in the next request, what it deletes is not."""
    browser = Browser()
    browser.set_cookie("id=abc; Path=/; HttpOnly")
    browser.set_cookie("v=1; Max-Age=10")
    browser.set_cookie("v=2; Max-Age=10")
    assert browser.cookie == "id=abc; v=2"
    browser.set_cookie("id=; Max-Age=0; Path=/")
    assert browser.cookie == "v=2"
    browser.set_cookie("v=null; expires=Thu, 01 Jan 1970 00:00:00 GMT")
    assert not browser.cookie


def test_a_forger_changes_every_cookie() -> None:
    """One character of each value is another one, and the lengths stay."""
    browser = Browser()
    browser.set_cookie("id=abcAdef")
    browser.set_cookie("v=xyz")
    forged = browser.forged()
    assert forged.jar.keys() == browser.jar.keys()
    for name, value in browser.jar.items():
        assert forged.jar[name] != value
        assert len(forged.jar[name]) == len(value)


def test_the_asgi_driver_is_a_browser() -> None:
    """Cookies of an answer come back in the next request's head, beside what browsers send."""
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", b"a=1; Path=/")]})
        await send({"type": "http.response.body", "body": b"he", "more_body": True})
        await send({"type": "http.response.body", "body": b"llo"})

    loop = asyncio.new_event_loop()
    try:
        driver, browser = asgi.Driver(app, loop), Browser()
        assert driver.ask("/read", browser) == "hello"
        driver.repeat("/read", [browser], 2)
    finally:
        loop.close()
    assert len(seen) == 3
    assert [(name, value) for name, value in seen[1] if name == b"cookie"] == [(b"cookie", b"a=1")]
    assert len(seen[2]) == len(seen[1]) == len(seen[0]) + 1 == len(workload.HEADERS) + 1


def test_the_wsgi_driver_is_a_browser() -> None:
    """The same, as WSGI spells it; the answer is closed."""
    seen: list[str | None] = []
    closed: list[bool] = []

    class Answer(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Any) -> Answer:
        seen.append(environ.get("HTTP_COOKIE"))
        start_response("200 OK", [("Set-Cookie", "a=1; Path=/")])
        return Answer([b"he", b"llo"])

    driver, browser = wsgi.Driver(app), Browser()
    assert driver.ask("/read", browser) == "hello"
    driver.repeat("/read", [browser], 2)
    assert seen == [None, "a=1", "a=1"]
    assert len(closed) == 3


@pytest.mark.parametrize(
    ("flaw", "told"),
    [("forgets", "not there in the next"), ("shares", "three writes"), ("trusts", "forged")],
)
def test_what_keeps_no_sessions_is_not_measured(flaw: str, told: str) -> None:
    """A contender that forgets, mixes up users or believes a forged cookie is refused."""
    turn.fill(Sessions(), [Browser() for _ in range(4)])
    with pytest.raises(turn.ContenderError, match=told):
        turn.fill(Sessions(**{flaw: True}), [Browser() for _ in range(4)])


def test_a_dearer_contender_is_seen_to_be_dearer() -> None:
    """What is measured is what the peer spends beyond the base: thirty times the work is several times the figure."""
    crowd = turn.Crowd([Browser() for _ in range(4)])
    cheap = turn.take(Sessions(), Sessions(burns=2_000), crowd, 0.05)
    dear = turn.take(Sessions(), Sessions(burns=60_000), crowd, 0.05)
    for kind in ("read", "write"):
        assert 0 < 5 * cheap[kind]["added_cpu_us"] < dear[kind]["added_cpu_us"]
        assert dear[kind]["base_cpu_us"] < dear[kind]["added_cpu_us"]


def test_a_crowd_takes_turns() -> None:
    """No browser of a crowd larger than a batch sends again before all others have sent, whatever slices are asked for."""
    browsers = [Browser() for _ in range(2 * turn.BATCH + 1)]
    sent: list[Browser] = []

    class Noting(Sessions):
        def repeat(self, path: str, browsers: list[Browser], times: int) -> None:
            sent.extend(browsers * times)

    crowd = turn.Crowd(browsers)
    turn.take(Sessions(), Noting(), crowd, 0.001)
    assert len(sent) > 2 * len(browsers)
    assert sent[: 2 * len(browsers)] == browsers * 2


def test_a_ratio_is_taken_within_each_round() -> None:
    """A machine that runs at half its speed for a round changes both figures of it, and not their ratio."""
    rounds: Rounds = {
        "ours": [turn_of(10, 20), turn_of(40, 40), turn_of(30, 10)],
        "peer": [turn_of(40, 50), turn_of(80, 100), turn_of(20, 25)],
    }
    assert session_cost.ratio(rounds, "ours", "peer", "read") == 0.5
    assert session_cost.ratio(rounds, "ours", "peer", "write") == 0.4
    assert session_cost.median(rounds["peer"], "read", "added_cpu_us") == 40


@pytest.mark.parametrize(
    ("read_us", "write_us", "holds"), [(50, 60, [True, True]), (51, 60, [False, True]), (50, 61, [True, False])]
)
def test_the_verdict_is_the_bounds(read_us: float, write_us: float, holds: list[bool]) -> None:
    """Half of the peer's CPU for a read, six tenths for a write, and not a bit more."""
    rounds: Rounds = {session_cost.OURS: [turn_of(read_us, write_us)], session_cost.JUDGED_PEER: [turn_of(100, 100)]}
    assert [promise.judged(rounds, kind).holds for kind in ("read", "write")] == holds


def test_every_contender_is_known_and_pinned() -> None:
    """Each contender can be built, and each environment names one version of everything it installs."""
    assert {contender.name for contender in CONTENDERS} == set(KNOWN)
    for name in {contender.environment for contender in CONTENDERS if contender.environment}:
        lines = (environments.REQUIREMENTS / f"{name}.txt").read_text().splitlines()
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+(; .*)?", line) for line in lines if not line.startswith("#")), name


def pins(path: Path) -> dict[str, str]:
    """Package -> version, as pinned in a requirements file or lock."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


def test_both_run_on_the_same_framework() -> None:
    """What the compared environments share has one version: the middleware makes the difference, and nothing else."""
    lock = pins(ROOT / "requirements.lock")
    cookie, flask, ours_on_flask = (
        pins(environments.REQUIREMENTS / f"{name}.txt") for name in ("starlette", "flask", "sessile-flask")
    )
    for one, other, must in (
        (cookie, lock, {"starlette", "uvloop", "anyio"}),
        (ours_on_flask, flask, {"flask", "werkzeug"}),
        (ours_on_flask, lock, {"msgspec"}),
    ):
        shared = one.keys() & other.keys()
        assert must <= shared
        assert {name: one[name] for name in shared} == {name: other[name] for name in shared}


def test_ours_on_flask_has_all_we_depend_on() -> None:
    """The environment in which our WSGI middleware is measured holds every package that the core install brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    assert needed <= pins(environments.REQUIREMENTS / "sessile-flask.txt").keys()


def test_ours_is_measured_in_a_process_of_its_own() -> None:
    """Our middleware passes what every contender must, and its turns come back, each round one."""
    said: list[str] = []
    rounds = session_cost.measure([CONTENDERS[0]], [], said.append, rounds=2, turn_s=0.01)
    assert [sorted(each) for each in rounds[session_cost.OURS]] == [["read", "write"], ["read", "write"]]
    assert all(each["write"]["added_cpu_us"] > 0 for each in rounds[session_cost.OURS])
    assert said[-1] == "round 2 of 2"


def test_a_contender_that_does_not_start_is_named() -> None:
    """Nothing is measured, nothing is left running, and the error says which one it was."""
    broken = Contender("no-such-contender", "Nobody's sessions", None)
    with pytest.raises(CannotShow, match="Nobody's sessions ended with status 1"):
        session_cost.measure([broken], [], lambda _: None, rounds=1, turn_s=0.01)


@pytest.mark.slow
def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made from its requirements, kept while they stay the same, and not believed in when making it failed."""
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "made")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    python = environments.python_of("empty")
    mark = python.parent / "mark"
    mark.touch()
    assert environments.python_of("empty") == python
    assert mark.exists()
    (tmp_path / "empty.txt").write_text("./no-such-package\n")
    for _ in range(2):
        with pytest.raises(CannotShow, match="could not make the environment of empty"):
            environments.python_of("empty")
    assert not mark.exists()


@pytest.mark.slow
@pytest.mark.needs("redis-server")
def test_redis_runs_while_it_is_needed() -> None:
    """A Redis of our own answers on its own port, and is gone afterwards."""
    with redis_server() as port:
        assert port != 6379
        assert answers(port)
    assert not answers(port)


@pytest.mark.slow
@pytest.mark.needs("redis-server")
def test_every_contender_keeps_sessions() -> None:
    """All peers start in their own environments, pass what every contender must, and take turns."""
    rounds = session_cost.measure(CONTENDERS[:2], CONTENDERS[2:], lambda _: None, rounds=2, turn_s=0.02)
    assert [len(rounds[contender.name]) for contender in CONTENDERS] == [2, 2, *[1] * (len(CONTENDERS) - 2)]
    assert {figure.name.partition(":")[0] for figure in promise.shown_only(rounds)} == {"read", "write"}
