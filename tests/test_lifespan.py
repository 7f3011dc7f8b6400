"""The life of a server: it joins before its app starts, leaves after its app has ended, and drains on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from sessile.asgi import SessionMiddleware
from sessile.errors import SettingsError
from sessile.lifespan import drain_on_sigterm
from tests.asgi_client import answer
from tests.fakes import FakeBackend, make_engine
from tests.forked import in_a_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessile.engine import Engine

Steps = list[str]


class Logged(FakeBackend):
    """A backend that notes when it is started and stopped."""

    def __init__(self, steps: Steps, *, error: str = "") -> None:
        super().__init__()
        self._steps = steps
        self._error = error

    async def start(self) -> None:
        if self._error:
            raise SettingsError(self._error)
        self._steps.append("joined")

    async def stop(self) -> None:
        self._steps.append("left")


def lived(app: Any, backend: FakeBackend, steps: Steps) -> None:
    """One life of a server: startup, and shutdown where startup was complete."""
    coming = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> Any:
        return {"type": next(coming)}

    async def send(message: Any) -> None:
        steps.append(message["type"].removeprefix("lifespan.") + message.get("message", ""))

    middleware = SessionMiddleware(app, engine=make_engine(backend=backend))
    asyncio.run(middleware({"type": "lifespan"}, receive, send))


def test_the_cluster_is_around_the_app() -> None:
    """The app starts in a cluster that is there, and ends in one."""
    steps: Steps = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope
        await receive()
        steps.append("app starts")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        steps.append("app ends")
        await send({"type": "lifespan.shutdown.complete"})

    lived(app, Logged(steps), steps)
    assert steps == ["joined", "app starts", "startup.complete", "app ends", "left", "shutdown.complete"]


@pytest.mark.parametrize("raises", [False, True])
def test_an_app_without_a_lifespan_is_spoken_for(raises: bool) -> None:  # noqa: FBT001
    """Whether it returns at once or raises, as most do that know of HTTP only."""
    steps: Steps = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if raises:
            raise AssertionError(f"{scope['type']} is not http")

    lived(app, Logged(steps), steps)
    assert steps == ["joined", "startup.complete", "left", "shutdown.complete"]


def test_an_app_that_fails_to_start_leaves_no_member_behind() -> None:
    """What it raises is the server's to tell."""
    steps: Steps = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope
        await receive()
        await send({"type": "lifespan.startup.failed", "message": ": no database"})

    lived(app, Logged(steps), steps)
    assert steps == ["joined", "left", "startup.failed: no database"]

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        lived(broken, Logged(steps := []), [])
    assert steps == ["joined", "left"]


def test_a_server_that_cannot_join_does_not_start() -> None:
    """The reason is told the server in the words of the error; the app is never asked to start."""
    steps: Steps = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        steps.append("app starts")

    lived(app, Logged(steps, error=": the node's port is taken"), steps)
    assert steps == ["startup.failed: the node's port is taken"]


# -- SIGTERM -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stops() -> Iterator[list[float]]:
    """When the server's own handler of SIGTERM was reached, by the loop's clock."""
    reached: list[float] = []
    before = signal.signal(signal.SIGTERM, lambda *_: reached.append(asyncio.get_running_loop().time()))
    yield reached
    signal.signal(signal.SIGTERM, before)


def terminated(engine: Engine, times: int, enough: Callable[[], bool]) -> float:
    """Send SIGTERM so often, and wait until it is enough; returns when the first was sent, by the loop's clock."""

    async def run() -> float:
        drain_on_sigterm(engine)
        began = asyncio.get_running_loop().time()
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
            assert engine.is_draining or not engine.settings.drain_grace
        async with asyncio.timeout(20):
            while not enough():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return began

    return asyncio.run(run())


def with_grace(grace: float) -> Engine:
    return make_engine(url="all-to-all://", members=["127.0.0.1:7400"], drain_grace=grace)


def test_a_server_drains_before_it_stops(stops: list[float]) -> None:
    """Its own handler is reached `drain_grace` later, once."""
    began = terminated(with_grace(0.2), 1, lambda: bool(stops))
    assert len(stops) == 1 and stops[0] - began >= 0.19


def test_who_asks_twice_does_not_wait(stops: list[float]) -> None:
    """The second SIGTERM stops the server at once."""
    terminated(with_grace(600), 2, lambda: bool(stops))
    assert len(stops) == 1


def test_without_grace_nothing_is_changed(stops: list[float]) -> None:
    """The server's own handler stays where it is."""
    own = signal.getsignal(signal.SIGTERM)
    engine = with_grace(0)
    terminated(engine, 1, lambda: bool(stops))
    assert signal.getsignal(signal.SIGTERM) is own and not engine.is_draining


@pytest.mark.parametrize("also", [signal.SIGUSR2, None])
def test_a_handler_of_the_loop_is_reached_no_sooner(also: signal.Signals | None) -> None:
    """Servers that use `add_signal_handler` drain as others do; other signals of the loop pass meanwhile."""

    async def run() -> tuple[list[tuple[int, bool]], float]:
        engine, loop = with_grace(0.2), asyncio.get_running_loop()
        reached: list[tuple[int, bool]] = []

        def reach(number: signal.Signals) -> None:
            reached.append((number, engine.is_draining))

        for handled in (signal.SIGTERM, signal.SIGUSR2):
            loop.add_signal_handler(handled, reach, handled)
        drain_on_sigterm(engine)
        began = loop.time()
        for number in (signal.SIGTERM, also):
            if number is not None:
                os.kill(os.getpid(), number)
        async with asyncio.timeout(20):
            while not any(number == signal.SIGTERM for number, _ in reached):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        took_s = loop.time() - began
        for handled in (signal.SIGTERM, signal.SIGUSR2):
            assert loop.remove_signal_handler(handled)
        return reached, took_s

    reached, took_s = asyncio.run(run())
    assert reached == [(number, True) for number in (also, signal.SIGTERM) if number is not None]
    assert took_s >= 0.19


def test_a_server_that_cannot_drain_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing hears SIGTERM, one line names the setting and the remedy; without grace there is nothing to say."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        for grace in (0.0, 2.0):

            async def run(grace: float = grace) -> None:
                drain_on_sigterm(with_grace(grace))

            asyncio.run(run())
    finally:
        signal.signal(signal.SIGTERM, before)
    (line,) = caplog.messages
    assert line.startswith("drain_grace=2s has no effect") and "--workers 0" in line


def test_while_it_drains_every_answer_closes_its_connection() -> None:
    """Keep-alive connections of balancers end with an answer and not in the middle of a request."""
    engine = make_engine(backend=FakeBackend())
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, headers=[(b"x", b"y")])

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/", "headers": [], "scheme": "http"}
    for engine.is_draining in (False, True):
        asyncio.run(SessionMiddleware(app, engine=engine)(dict(scope), None, send))  # type: ignore[arg-type]
    heads = [message["headers"] for message in sent if message["type"] == "http.response.start"]
    assert heads == [[(b"x", b"y")], [(b"x", b"y"), (b"connection", b"close")]]


def test_sigterm_ends_a_forked_child_as_its_server_would_have_it(stops: list[float]) -> None:
    """The child has the handler, and no loop that would ever call the server's own."""

    async def run() -> str:
        engine = with_grace(60.0)
        drain_on_sigterm(engine)

        def work() -> tuple[bool, bool]:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except RuntimeError:  # the server's own, as this test has it, looks for a loop
                return True, engine.is_draining
            return False, engine.is_draining

        return in_a_child(work)

    assert asyncio.run(run()) == "(True, False)"
    assert not stops
