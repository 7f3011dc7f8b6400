"""Members of a cluster on real sockets: one session for all, whoever answers, whoever dies."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from sessile.backend import Acknowledged, PullStatus
from sessile.blocking import run_blocking
from sessile.engine import Engine
from sessile.errors import SettingsError
from sessile.network import runtime, troubles
from sessile.replication import dials
from tests.fakes import SECRET, FakeBrowser
from tests.forked import Child
from tests.network.clusters import Tab, backend_of, cluster_of, engines_of, free_ports, kill, ran, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.session import Session

LOOPS = [asyncio.new_event_loop]
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS.append(uvloop.new_event_loop)


def count(session: Session) -> int:
    session["n"] = session.get("n", 0) + 1
    value: int = session["n"]
    return value


def test_making_an_engine_does_nothing() -> None:
    """No thread, no socket, no loop: it is started by who serves."""
    threads = threading.active_count()
    engine = engines_of(1)[0]
    assert (threading.active_count(), backend_of(engine).is_running) == (threads, False)
    assert backend_of(engine).status() == {"state": "stopped"}


@pytest.mark.parametrize("strategy", ["all-to-all", "primary-backup"])
@pytest.mark.parametrize("tls", ["off", "secret"])
def test_any_member_answers_exactly(strategy: str, tls: str) -> None:
    """One request after the other, each at another member: every one sees all before it."""

    async def run() -> None:
        async with cluster_of(3, strategy, tls=tls) as engines:
            tab = Tab(engines[0])
            seen = [await tab.ask(engines[number % 3], count) for number in range(60)]
            assert seen == list(range(1, 61))
            assert all(engine.counts["stale"] == engine.counts["degraded"] == 0 for engine in engines)

    ran(run())


def test_parallel_requests_lose_nothing() -> None:
    """Eight fields of one session at once, over three members: all there, everywhere, a moment later."""

    async def run() -> None:
        async with cluster_of(3) as engines:
            first = Tab(engines[0])
            await first.ask(engines[0], lambda session: session.update(begun=True))
            tabs = [first.copy() for _ in range(8)]

            def write(number: int) -> Any:
                return lambda session: session.update({f"f{number}": number})

            await asyncio.gather(
                *(Tab.ask(tab, engines[at % 3], write(at)) for at, tab in enumerate(tabs))  # type: ignore[arg-type]
            )
            wanted = {"begun": True, **{f"f{at}": at for at in range(8)}}
            for engine in engines:
                await until(lambda engine=engine: len(engine.table) == 1)  # type: ignore[misc]
                assert await first.look(engine) == wanted

    ran(run())


def test_what_was_acknowledged_survives_a_member_that_is_killed() -> None:
    """Its session goes on at the others at once, with the last change in it."""

    async def run() -> None:
        async with cluster_of(3, "primary-backup") as engines:
            tab = Tab(engines[0])
            for _ in range(5):
                await tab.ask(engines[0], count)
            await kill(engines[0])
            assert [await tab.ask(engines[1], count), await tab.ask(engines[2], count)] == [6, 7]

    ran(run())


def test_a_member_that_stops_hands_over() -> None:
    """With nobody left but a newcomer, the newcomer has everything."""

    async def run() -> None:
        async with cluster_of(2, "primary-backup") as engines:
            tabs = [Tab(engines[0]) for _ in range(50)]
            for number, tab in enumerate(tabs):
                await tab.ask(engines[number % 2], count)
            await backend_of(engines[0]).stop()
            assert not backend_of(engines[0]).is_running
            for tab in tabs:
                assert await tab.ask(engines[1], count) == 2
            await backend_of(engines[0]).start()
            await until(lambda: len(engines[0].table) >= 50)

    ran(run())


def test_an_end_is_known_everywhere_when_it_is_answered() -> None:
    """The cookie of a session that has ended opens nothing, at any member."""

    async def run() -> None:
        async with cluster_of(3, "primary-backup") as engines:
            tab = Tab(engines[0])
            await tab.ask(engines[0], count)
            stolen = Tab(engines[0])
            stolen.cookies = dict(tab.cookies)
            await tab.ask(engines[1], lambda session: session.logout())
            for engine in engines:
                assert await stolen.look(engine) == {}

    ran(run())


def test_a_touch_reaches_the_other_holders() -> None:
    """Reading keeps a session alive where it is not read."""

    async def run() -> None:
        async with cluster_of(2, idle_timeout=5) as engines:
            tab = Tab(engines[0])
            await tab.ask(engines[0], count)
            before = engines[1].table.get(tab.key)
            await asyncio.sleep(0.6)
            await tab.look(engines[0])
            await until(lambda: engines[1].table.get(tab.key) != before)

    ran(run())


# -- threads and loops ---------------------------------------------------------------------------------------------------


def test_threads_are_served_by_one_portal() -> None:
    """Programs without a loop: started in a thread, asked from any, stopped, started again."""
    one, other = engines_of(2)
    for engine in (one, other):
        backend_of(engine).start_in_thread()
        backend_of(engine).start_in_thread()
    tab = Tab(one)

    def ask(engine: Engine) -> int:
        session = engine.open((tab.header,) if tab.cookies else (), is_https=False)
        value = count(session)
        run_blocking(engine.settle(engine.commit(session)))
        tab.keep(engine.cookies(session))
        return value

    assert [ask((one, other)[number % 2]) for number in range(20)] == list(range(1, 21))
    backend_of(one).stop_in_thread()
    assert not backend_of(one).is_running
    assert ask(other) == 21
    backend_of(one).start_in_thread()
    assert ask(one) == 22
    for engine in (one, other):
        backend_of(engine).stop_in_thread()


def test_threads_of_a_server_whose_loop_gets_no_turn_serve_nobody_who_has_logged_out() -> None:
    """The others have stopped waiting for it: its threads ask before they serve, and wait until the loop goes on."""
    one, other = engines_of(2)
    for engine in (one, other):
        backend_of(engine).start_in_thread()
    user, stolen = FakeBrowser(one), FakeBrowser(other)
    with user.request() as session:
        session["user"] = "ann"
    stolen.cookies = dict(user.cookies)
    assert dict(stolen.open()) == {"user": "ann"}
    has_turn, is_held = threading.Event(), threading.Event()

    def hold() -> None:
        is_held.set()
        assert has_turn.wait(30)

    loop = backend_of(other).loop
    assert loop is not None
    loop.call_soon_threadsafe(hold)
    assert is_held.wait(10)
    with user.request() as session:
        session.logout()
    opened: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: opened.append(dict(stolen.open())))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive(), "it waits for what the others say"
    has_turn.set()
    thread.join(20)
    assert opened == [{}]
    for engine in (one, other):
        backend_of(engine).stop_in_thread()


def test_where_the_loop_does_not_run_nothing_is_believed() -> None:
    """A question that is not answered in time is no reason to serve what may have ended long ago."""
    now_ms = [1_000_000]
    (engine,) = engines_of(1)
    engine.clock_ms = lambda: now_ms[0]

    async def run() -> None:
        backend = backend_of(engine)
        await backend.start()
        assert backend.is_trusting()
        now_ms[0] += 449
        assert backend.is_trusting()
        now_ms[0] += 1
        assert not backend.is_trusting()
        await kill(engine)

    ran(run())


def test_after_a_suspended_machine_wakes_up_the_first_request_asks() -> None:
    """Its clock has jumped, and its timers have not noticed: they count only while the machine runs."""

    async def run() -> None:
        async with cluster_of(2) as engines:
            tab = Tab(engines[0])
            await tab.ask(engines[0], count)
            late = engines[1]
            backend, clock_ms = backend_of(late), late.clock_ms
            node = backend.node
            await until(lambda: backend.is_sure(tab.key, late.clock_ms()))
            asked = node.counts["questions"]
            late.clock_ms = lambda: clock_ms() + 60_000
            assert not backend.is_sure(tab.key, late.clock_ms())
            assert await tab.look(late) == {"n": 1}
            assert node.counts["questions"] > asked and node.counts["absences"] == 1
            await until(lambda: backend.is_sure(tab.key, late.clock_ms()))
            assert backend.status()["members"] == {engines[0].settings.me: "alive"}

    ran(run())


def test_another_loop_may_ask() -> None:
    """A test client's loop, or a second server's, in the same process: it crosses over."""
    one, other = engines_of(2)
    backend_of(one).start_in_thread()
    backend_of(other).start_in_thread()
    tab = Tab(one)

    async def run() -> list[int]:
        return [await tab.ask((one, other)[number % 2], count) for number in range(10)]

    assert asyncio.run(run()) == list(range(1, 11))
    backend_of(one).stop_in_thread()
    backend_of(other).stop_in_thread()


def test_it_starts_anew_when_its_loop_is_gone() -> None:
    """State belongs to no loop: what is held is still there, and is served, on the next one."""
    (engine,) = engines_of(1)
    tab = Tab(engine)

    async def ask() -> int:
        if not backend_of(engine).is_running:
            await backend_of(engine).start()
        value: int = await tab.ask(engine, count)
        return value

    assert [asyncio.run(ask()), asyncio.run(ask())] == [1, 2]
    backend_of(engine).abandon()


def test_a_closed_loop_is_unreachable_and_nothing_hangs() -> None:
    """Questions to a node whose loop is gone are answered: nobody is there."""
    (engine,) = engines_of(1)
    backend = backend_of(engine)
    asyncio.run(backend.start())
    assert not backend.is_running
    assert asyncio.run(backend.pull(b"k" * 16, None, ())).status is PullStatus.UNREACHABLE
    assert asyncio.run(backend.push(b"k" * 16, None, "one")) is Acknowledged.NO
    backend.abandon()


def test_whoever_starts_it_at_once_starts_it_once() -> None:
    """A hundred first requests: one node, one port."""

    async def run() -> None:
        (engine,) = engines_of(1)
        await asyncio.gather(*(backend_of(engine).start() for _ in range(100)))
        assert backend_of(engine).is_running
        await backend_of(engine).stop()

    ran(run())


# -- what cannot be ------------------------------------------------------------------------------------------------------


def test_a_port_that_a_sibling_has_is_one_clear_error() -> None:
    """Two workers of one server: the second says what to do."""

    async def run() -> None:
        (port,) = free_ports(1)
        members = [f"127.0.0.1:{port}"]
        one, other = (
            Engine(url="all-to-all://", secret=SECRET, members=members, me=members[0], tls="off") for _ in "ab"
        )
        await backend_of(one).start()
        with pytest.raises(SettingsError, match=rf"me=127.0.0.1:{port}: .*--workers 1"):
            await backend_of(other).start()
        with pytest.raises(SettingsError, match="--workers 1"):
            await backend_of(other).start()
        await backend_of(one).stop()

    ran(run())


def test_it_is_found_out_which_member_this_is() -> None:
    """Of addresses of which one is this machine's, that one is me; of several, somebody has to say."""

    async def run() -> None:
        (port,) = free_ports(1)
        engine = Engine(url="all-to-all://", secret=SECRET, members=[f"127.0.0.1:{port}"], tls="off")
        await backend_of(engine).start()
        assert backend_of(engine).status()["name"] == f"127.0.0.1:{port}"
        await backend_of(engine).stop()
        several = [f"127.0.0.1:{each}" for each in free_ports(2)]
        with pytest.raises(SettingsError, match="me="):
            await backend_of(Engine(url="all-to-all://", secret=SECRET, members=several, tls="off")).start()

    ran(run())


def test_a_stranger_without_the_secret_is_no_member() -> None:
    """Each goes on alone; nothing of a session passes."""

    async def run() -> None:
        async with cluster_of(2, tls="secret") as engines:
            members = [str(member) for member in engines[0].settings.members]
            (port,) = free_ports(1)
            stranger = Engine(
                url="all-to-all://", secret="another secret, of somebody else", me=f"127.0.0.1:{port}", members=members
            )
            tab = Tab(engines[0])
            await tab.ask(engines[0], count)
            await backend_of(stranger).start()
            await asyncio.sleep(0.3)
            assert len(stranger.table) == 0
            assert [len(backend_of(engine).status()["members"]) for engine in engines] == [1, 1]
            assert backend_of(stranger).status()["linked"] == 0
            await kill(stranger)

    ran(run())


def another(engine: Engine, **changed: Any) -> Engine:
    """The same member with other settings."""
    settings = engine.settings
    members = [str(member) for member in settings.members]
    given: dict[str, Any] = {"url": "all-to-all://", "secret": SECRET, "tls": "secret", **changed}
    return Engine(me=settings.me, members=members, sweeps=False, **given)


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes tenths of them."""
    for module, name, value in (
        (troubles, "UNMET_MS", 200),
        (troubles, "ALONE_MS", 200),
        (runtime, "LOOK_S", 0.05),
        (dials, "BACKOFF_MAX_MS", 200),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"secret": "of-another-cluster-and-long-enough"}, ["another secret", "SESSILE_SECRET"]),
        ({"tls": "off"}, ["tls="]),
        ({"url": "primary-backup://"}, ["its strategy is", "url="]),
    ],
    ids=["secret", "tls", "strategy"],
)
@pytest.mark.parametrize("make_loop", LOOPS[-1:])
def test_a_member_that_is_set_up_otherwise_is_told_once_at_both_ends(
    changed: dict[str, Any],
    words: list[str],
    make_loop: Callable[[], asyncio.AbstractEventLoop],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A warning with the remedy, however often it is dialled; the status names the one that was never met, and why."""
    hurry(monkeypatch)

    async def run() -> None:
        engines = engines_of(3, tls="secret")
        engines[2] = another(engines[2], **changed)
        names = [engine.settings.me for engine in engines]
        try:
            await asyncio.gather(*(backend_of(engine).start() for engine in engines))

            def said(number: int) -> list[str]:
                about = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
                return [text for text in about if text.startswith(f"{names[number]}: ") and "alone" not in text]

            await until(lambda: all(names[2] in " ".join(said(n)) for n in (0, 1)) and bool(said(2)))
            for number in (0, 1):
                status = backend_of(engines[number]).status()
                assert set(status["unmet"]) == {names[2]} and status["unmet"][names[2]]
                assert all(word in " ".join(said(number)) for word in words)
            assert set(backend_of(engines[2]).status()["unmet"]) == set(names[:2])
            counts = backend_of(engines[0]).status()["counts"]
            dialled = counts.get("failed_handshakes", 0) + counts.get("refused_links", 0)

            def now() -> int:
                counts = backend_of(engines[0]).status()["counts"]
                return int(counts.get("failed_handshakes", 0) + counts.get("refused_links", 0))

            await until(lambda: now() >= dialled + 2)
            for number in range(3):  # each state once, however often it was tried
                assert len(set(said(number))) == len(said(number)) <= 4, said(number)
            await kill(engines[2])
            engines[2] = another(engines[2], tls="secret", secret=SECRET, cluster="sessile", url="all-to-all://")
            await backend_of(engines[2]).start()
            await until(lambda: all(f"linked to {names[2]}: all is well there" in " ".join(said(n)) for n in (0, 1)))
            assert all(backend_of(engine).status()["unmet"] == {} for engine in engines)
        finally:
            await asyncio.gather(*(kill(engine) for engine in engines))

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(asyncio.wait_for(run(), 60))


def test_a_server_alone_says_so(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its members are named wrongly, or a firewall is between them: nobody answers, and it serves all the same."""
    hurry(monkeypatch)

    async def run() -> None:
        (engine,) = engines_of(1)
        members = [engine.settings.me, "no-such-host.invalid:7400"]
        wrong = Engine(url="all-to-all://", secret=SECRET, me=members[0], members=members, sweeps=False)
        await backend_of(wrong).start()
        await until(lambda: "alone among 2 named members" in caplog.text)
        (unmet,) = (each.getMessage() for each in caplog.records if "did not meet" in each.message)
        assert "cannot be resolved" in unmet and "members=" in unmet
        await kill(wrong)

    ran(run())


def test_a_death_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """By those who go on; one that leaves in good order has not died."""

    async def run() -> None:
        async with cluster_of(3) as engines:
            names = [engine.settings.me for engine in engines]
            await backend_of(engines[2]).stop()
            await kill(engines[1])
            await until(lambda: f"{names[1]} is dead" in caplog.text)
            assert f"{names[2]} is dead" not in caplog.text

    ran(run())


def test_status_tells_of_members_copies_and_traffic() -> None:
    """Plain values, true at both ends."""

    async def run() -> None:
        async with cluster_of(3, "primary-backup", directory="keys") as engines:
            tabs = [Tab(engines[0]) for _ in range(30)]
            for number, tab in enumerate(tabs):
                await tab.ask(engines[number % 3], count)
            await until(lambda: all(backend_of(each).status()["directory"] == 30 for each in engines))
            told = [backend_of(each).status() for each in engines]
            assert sum(each["primary"] for each in told) == sum(each["backup"] for each in told) == 30
            assert [sorted(each["members"].values()) for each in told] == [["alive", "alive"]] * 3
            assert all(each["bytes_sent"] > 0 < each["bytes_received"] for each in told)

    ran(run())


def test_an_ended_session_is_no_copy() -> None:
    """Every member remembers that it ended; none counts it among those it holds."""

    async def run() -> None:
        async with cluster_of(3, "primary-backup") as engines:
            tab = Tab(engines[0])
            await tab.ask(engines[0], count)
            await tab.ask(engines[0], lambda session: session.logout())
            await until(lambda: all(each.table.tombstones == 1 for each in engines))
            told = [backend_of(each).status() for each in engines]
            assert [(each["primary"], each["backup"], each["other"]) for each in told] == [(0, 0, 0)] * 3

    ran(run())


def test_a_forked_child_of_a_member_is_none_and_disturbs_no_link() -> None:
    """It says so in one clear error, whoever asks; the members go on, and see one of them end though its child lives."""

    def work(engine: Engine, tab: Tab) -> list[str]:
        async def serve() -> list[str]:
            said = []
            for ask in (tab.ask(engine, count), backend_of(engine).start()):
                try:
                    await ask
                except SettingsError as error:
                    said.append(str(error))
            return said

        return asyncio.run(serve())

    async def run() -> None:
        async with cluster_of(2, tls="secret") as engines:
            first, second = engines
            tab = Tab(first)
            assert await tab.ask(first, count) == 1
            child = Child(lambda: work(first, tab))
            try:
                said = await asyncio.to_thread(child.said)
                assert said.count("--workers 1") == 2 and "is its parent's" in said and "cannot be had" in said
                assert [await tab.ask(engines[number % 2], count) for number in range(10)] == list(range(2, 12))
                assert backend_of(second).status()["linked"] == 1
                counts = backend_of(second).node.counts
                assert not counts["protocol_errors"] + counts["refutations"] + counts["name_clashes"]
                await kill(first)
                await until(
                    lambda: backend_of(second).status()["linked"] == 0, within_s=0.45
                )  # by its end, not its silence
            finally:
                child.end()

    ran(run())


def test_a_member_that_stops_alone_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """The last live member's sessions are lost, in one line; one that could hand them over, or has none, says nothing."""

    async def run() -> None:
        async with cluster_of(2) as engines:
            tab = Tab(engines[0])
            await tab.ask(engines[0], count)
            await backend_of(engines[0]).stop()
            assert not warnings_of(caplog)
            await backend_of(engines[1]).stop()
        async with cluster_of(1) as (engine,):
            await backend_of(engine).stop()

    ran(run())
    (line,) = warnings_of(caplog)
    assert "stopped as the only live member; 1 sessions are lost" in line and "--max-requests" in line


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
