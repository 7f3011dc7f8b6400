"""The server that runs an app: how engines join when a worker starts, and how a mistake stops it."""

from __future__ import annotations

import signal
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from sessile import servers
from sessile.answers import _logged
from sessile.asgi import SessionMiddleware as AsgiMiddleware
from sessile.errors import SettingsError
from sessile.servers import enrol, is_loading, join, join_gunicorn
from sessile.wsgi import SessionMiddleware
from tests.fakes import SECRET, FakeBackend, make_engine
from tests.network.clusters import free_ports
from tests.server_process import ended, served
from tests.wsgi_client import does, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sessile.engine import Engine


class Joining(FakeBackend):
    """Joins once, or cannot."""

    is_running: ClassVar[bool] = False

    def __init__(self, error: str = "") -> None:
        super().__init__()
        self.error = error
        self.starts = 0

    def start_in_thread(self) -> None:
        if self.error:
            raise SettingsError(self.error)
        self.starts += 1


@pytest.fixture(autouse=True)
def _enrolled() -> Iterator[None]:
    """No engine of another test joins here, and nothing was logged yet."""
    before = set(servers._engines)
    servers._engines.clear()
    _logged.clear()
    yield
    servers._engines.clear()
    servers._engines.update(before)


def called_from(module: str, call: Callable[[], Any], **variables: Any) -> Any:
    """What this returns when code of another module calls it, in a method whose local variables are these."""
    names = ", ".join(["call", *variables])
    space: dict[str, Any] = {"__name__": module}
    exec(f"def load({names}): return call()", space)
    return space["load"](call, **variables)


class Setting:
    """One of gunicorn's settings."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def get(self) -> Any:
        return self.value

    def set(self, value: Any) -> None:
        self.value = value


class Gunicorn:
    """Stands for gunicorn's arbiter and its workers."""

    alive = True
    ppid = 0
    age = 1

    def __init__(self, hook: Any = lambda worker: None) -> None:
        self.lines: list[str] = []
        say = lambda text, *values: self.lines.append(text % values)  # noqa: E731  # for both levels
        self.log = SimpleNamespace(error=say, warning=say)
        self.cfg = SimpleNamespace(settings={"post_worker_init": Setting(hook)}, workers=1, max_requests=0)

    @property
    def hook(self) -> Any:
        return self.cfg.settings["post_worker_init"].value


def test_a_middleware_enrols_its_engine_and_join_starts_it() -> None:
    """Building one joins nothing; `join` does, and passes on why one cannot."""
    backend = Joining()
    engine = make_engine(backend=backend)
    alone = SessionMiddleware(does(put(a=1)), engine=make_engine())
    middleware = SessionMiddleware(does(put(a=1)), engine=engine)
    assert backend.starts == 0
    join()
    assert backend.starts == 1
    backend.error = "me=web1:7400 is taken"
    with pytest.raises(SettingsError, match="web1:7400"):
        join()
    assert middleware.engine is engine and alone.engine.backend is None


def test_gunicorn_that_loads_the_app_gets_the_hook_once() -> None:
    """Its own hook runs first; one of ours is left as it is; other callers with a configuration are not gunicorn."""
    done: list[str] = []
    engine = make_engine(backend=(backend := Joining()))
    gunicorn = Gunicorn(lambda worker: done.append("its own"))
    for _ in range(2):
        called_from("gunicorn.arbiter", lambda: enrol(engine), self=gunicorn)
    gunicorn.hook(gunicorn)
    assert (done, backend.starts) == (["its own"], 1)
    configured, other = Gunicorn(join_gunicorn), Gunicorn(own := lambda worker: None)
    called_from("gunicorn.workers.base", lambda: enrol(engine), self=configured)
    called_from("shop.config", lambda: enrol(engine), self=other)
    assert configured.hook is join_gunicorn and other.hook is own


def test_a_worker_that_cannot_join_stops_gunicorn_unless_it_stops_already() -> None:
    """The reason is a line of gunicorn's log; a worker whose turn comes later is ended by then and says nothing."""
    enrol(engine := make_engine(backend=Joining("me=web1:7400 is taken")))
    worker = Gunicorn()
    with pytest.raises(SystemExit) as stopped:
        join_gunicorn(worker)
    assert (stopped.value.code, worker.lines) == (servers.BOOT_ERROR, ["me=web1:7400 is taken"])
    later = Gunicorn()
    later.cfg.workers, later.alive = 2, False
    with pytest.raises(SystemExit) as stopped:
        join_gunicorn(later)
    assert (stopped.value.code, later.lines) == (0, [])
    assert engine.backend is not None


def test_a_worker_that_ends_by_itself_and_shares_nothing_says_so() -> None:
    """With `max_requests` it takes its sessions with it; one that shares them, or does not end, says nothing."""
    for backend, max_requests, said in ((None, 0, 0), (Joining(), 100, 0), (None, 100, 1)):
        middleware = SessionMiddleware(does(put(a=1)), engine=make_engine(backend=backend))
        worker = Gunicorn()
        worker.cfg.max_requests = max_requests
        servers._engines.clear()
        enrol(middleware.engine)
        join_gunicorn(worker)
        assert len(worker.lines) == said
    assert "max_requests=100" in worker.lines[0]


def test_a_mistake_in_the_settings_stops_gunicorn_while_it_loads_the_app() -> None:
    """Anywhere else it raises, as ever."""
    gunicorn = Gunicorn()

    def load() -> Any:
        return SessionMiddleware(does(put(a=1)), url="sticki://")

    with pytest.raises(SystemExit) as stopped:
        called_from("gunicorn.workers.base", load, self=gunicorn)
    assert stopped.value.code == servers.BOOT_ERROR
    assert gunicorn.lines == ["url has an unknown scheme; did you mean 'sticky://'?"]
    with pytest.raises(SettingsError, match="unknown scheme"):
        called_from("shop.wsgi", load, self=gunicorn)


@pytest.mark.parametrize("server", ["uvicorn.config", "hypercorn.utils", "granian._internal", "gunicorn.app.wsgiapp"])
def test_a_server_that_loads_an_asgi_app_is_told_later(server: str) -> None:
    """It shows a failed lifespan as one line, and an exception of the import as a traceback."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Is never called."""

    def load() -> Any:
        return AsgiMiddleware(app, url="sticki://")

    assert called_from(server, is_loading) and not is_loading()
    middleware = called_from(server, load)
    with pytest.raises(SettingsError, match="unknown scheme"):
        _ = middleware.engine
    with pytest.raises(SettingsError, match="unknown scheme"):
        called_from("shop.asgi", load)


@pytest.mark.parametrize("lifespan", ["auto", "off"])
def test_a_mistake_under_a_real_uvicorn(lifespan: str, tmp_path: Path) -> None:
    """FastAPI builds its middleware late: uvicorn does not start, or answers 503; one line says why, no traceback."""
    (port,) = free_ports(1)
    uvicorn = ["uvicorn", "--app-dir", "examples", "fastapi_app:app", "--port", str(port), "--lifespan", lifespan]
    if lifespan == "auto":
        status, log = ended(uvicorn, SESSILE_SAMESITE="lux")
        assert status == 3, log
    else:
        with served(uvicorn, port, tmp_path, SESSILE_SAMESITE="lux") as server:
            for _ in range(3):
                with pytest.raises(AssertionError):
                    server.ask()
            log = server.log
        assert log.count("503 Service Unavailable") == 3
    assert log.count("SESSILE_SAMESITE") == 1 and "Traceback" not in log, log


# -- uWSGI -------------------------------------------------------------------------------------------------------------


class Uwsgi(ModuleType):
    """What uWSGI's interpreter has built in."""

    def __init__(self, worker: int) -> None:
        super().__init__("uwsgi")
        self.worker = worker
        self.post_fork_hook: Any = None

    def worker_id(self) -> int:
        return self.worker

    def masterpid(self) -> int:
        return 0


@pytest.fixture
def enrolled_in_uwsgi(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Engine], Uwsgi]:
    """Enrols an engine in a process of uWSGI: worker 0 is the one that forks the others."""

    def enrolled(worker: int, engine: Engine) -> Uwsgi:
        uwsgi = Uwsgi(worker)
        monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
        enrol(engine)
        return uwsgi

    return enrolled


def test_uwsgi_joins_after_the_fork(enrolled_in_uwsgi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its hook, after what is there already, or in the list of its decorators; a lazy worker joins at once."""
    monkeypatch.setitem(sys.modules, "uwsgidecorators", None)
    engine = make_engine(backend=(backend := Joining()))
    uwsgi = enrolled_in_uwsgi(0, engine)
    assert backend.starts == 0
    uwsgi.post_fork_hook()
    assert backend.starts == 1
    decorators = ModuleType("uwsgidecorators")
    monkeypatch.setattr(decorators, "postfork_chain", [], raising=False)
    monkeypatch.setitem(sys.modules, "uwsgidecorators", decorators)
    for _ in range(2):
        enrolled_in_uwsgi(0, engine)
    (hook,) = decorators.postfork_chain
    hook()
    assert backend.starts == 2
    enrolled_in_uwsgi(1, engine)
    assert backend.starts == 3
    enrolled_in_uwsgi(1, make_engine())


def test_a_worker_of_uwsgi_that_cannot_join_stops_it(
    enrolled_in_uwsgi: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once its siblings hear their master; the reason is one line."""
    monkeypatch.setattr(servers, "PAST_HOOKS_S", 0.0)
    told: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: told.append(number))
    try:
        engine = make_engine(backend=Joining("me=web1:7400 is taken"))
        enrolled_in_uwsgi(1, engine)
        deadline = time.monotonic() + 20
        while not told:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caplog.messages == ["me=web1:7400 is taken"]


def test_settings_are_checked_without_a_server() -> None:
    """The middleware of a good app enrols, whatever runs it."""
    middleware = SessionMiddleware(does(put(a=1)), secret=SECRET)
    assert middleware.engine in servers._engines
