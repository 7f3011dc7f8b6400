"""The server that runs an application: how the engines of a WSGI app join when its worker process starts.

WSGI does not tell an app that its server starts (PEP 3333). A member that joined at its first request would miss what leaving
servers hand over before. So an engine enrols here when its middleware is built, and joins

- under gunicorn in `post_worker_init`: by `sessile.gunicorn` as its configuration, or by a hook that `enrol` adds to the
  configuration it has, which the call stack shows while gunicorn loads the app;
- under uWSGI after the fork, or at once in a worker that loads the app itself (`lazy-apps`);
- elsewhere when `join` is called, or at the first request: one that needs no session, such as a health check, does not wait
  for it (`join_soon`).

A worker that cannot join logs why as one line, and the server stops instead of starting it again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, WeakSet

from sessile.answers import log_once
from sessile.blocking import running_loop
from sessile.errors import SessileError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from sessile.backend import Backend
    from sessile.engine import Engine

__all__ = ["enrol", "is_loading", "join", "join_gunicorn", "join_soon", "stop_loading"]

_engines: Final[WeakSet[Engine]] = WeakSet()
_joining: Final[WeakKeyDictionary[Engine, int]] = WeakKeyDictionary()
"""Engine → the process in which `join_soon` is at work for it."""
_tasks: Final[set[asyncio.Task[None]]] = set()
"""What keeps these tasks from being collected while they run."""
_SERVERS: Final = frozenset({"daphne", "granian", "gunicorn", "hypercorn", "uvicorn"})
"""Packages whose code is on the call stack while they load an app."""
_GUNICORN: Final = frozenset({"gunicorn.arbiter", "gunicorn.workers.base"})
"""The modules of gunicorn in which `self.app.wsgi()` loads the app: in the master with `--preload`, else in the worker."""
BOOT_ERROR: Final = 3
"""gunicorn's `Arbiter.WORKER_BOOT_ERROR`: a worker that exits with it stops the master."""
TURN_S: Final = 2.0
"""More than gunicorn takes to notice that a worker has exited."""
POLL_S: Final = 0.05
PAST_HOOKS_S: Final = 5.0
"""By then uWSGI's other workers have left the hook that runs after the fork."""


def enrol(engine: Engine) -> None:
    """Let this engine join when the worker process starts. Does no IO, but in a uWSGI worker that loads the app itself."""
    _engines.add(engine)
    gunicorn = _gunicorn()
    if gunicorn is not None:
        _add_hook(gunicorn.cfg)
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or engine.backend is None:
        return
    if uwsgi.worker_id():
        _join_uwsgi()
    else:
        _after_uwsgi_forks(uwsgi)


def join() -> None:
    """Let every engine of this process's WSGI middlewares join its cluster, or connect to its store, before it serves.

    For the hook that your server calls in each worker process; `sessile.gunicorn` does this for gunicorn.

    Raises:
        SettingsError: one of them cannot: the message names the setting and the remedy.
    """
    for engine in list(_engines):
        backend = engine.backend
        if backend is not None and not backend.is_running:
            backend.start_in_thread()


def join_soon(engine: Engine) -> None:
    """Begin to join, without waiting for it, unless that is under way. What goes wrong is logged, and tried again next time."""
    backend = engine.backend
    if backend is None or backend.is_running or _joining.get(engine) == os.getpid():
        return
    _joining[engine] = os.getpid()
    loop = running_loop()
    if loop is None:
        threading.Thread(target=_join_in_thread, args=(engine, backend), name="sessile-join", daemon=True).start()
    else:
        task = loop.create_task(backend.start())
        _tasks.add(task)
        task.add_done_callback(lambda done: _has_joined(engine, done))


def _join_in_thread(engine: Engine, backend: Backend) -> None:
    try:
        backend.start_in_thread()
    except SessileError as error:
        log_once(error)
    finally:
        _joining.pop(engine, None)


def _has_joined(engine: Engine, task: asyncio.Task[None]) -> None:
    _tasks.discard(task)
    _joining.pop(engine, None)
    if not task.cancelled() and isinstance(error := task.exception(), SessileError):
        log_once(error)


def join_gunicorn(worker: Any) -> None:
    """The hook `post_worker_init` of gunicorn: join, or stop gunicorn with the reason."""
    if worker.cfg.max_requests and any(engine.backend is None for engine in list(_engines)):
        worker.log.warning(
            "max_requests=%d ends this worker, and with sticky:// all its sessions: leave it out, or share sessions with "
            "another strategy",
            worker.cfg.max_requests,
        )
    try:
        join()
    except SessileError as error:
        # The first worker that exits with this status ends the others. A second one that does so while gunicorn stops makes
        # it end with a traceback. So workers that fail together take turns.
        turn_s = TURN_S * (worker.age % max(worker.cfg.workers, 1))
        until = time.monotonic() + turn_s
        while time.monotonic() < until:
            if not worker.alive or os.getppid() != worker.ppid:
                sys.exit(0)
            time.sleep(POLL_S)
        worker.log.error("%s", error)  # noqa: TRY400  # one line: a traceback would hide the remedy
        sys.exit(BOOT_ERROR)


def is_loading() -> bool:
    """Whether a server loads the app at this moment, so that it can be told later that the app cannot start."""
    return _find(lambda name, _: name.partition(".")[0] in _SERVERS) is not None


def stop_loading(error: Exception) -> None:
    """Stop gunicorn, if it loads the app at this moment, with a line of its log instead of a traceback."""
    gunicorn = _gunicorn()
    if gunicorn is not None:
        gunicorn.log.error("%s", error)
        sys.exit(BOOT_ERROR)


def _gunicorn() -> Any:
    """The arbiter or worker of gunicorn that loads the app at this moment; None where gunicorn does not."""
    frame = _find(lambda name, there: name in _GUNICORN and hasattr(there.get("self"), "cfg"))
    return None if frame is None else frame["self"]


def _find(is_it: Callable[[str, dict[str, Any]], bool]) -> dict[str, Any] | None:
    """The local variables of the nearest caller of which this holds, given its module's name and its local variables."""
    frame = sys._getframe(2)  # noqa: SLF001  # the documented way to the callers
    while frame is not None:
        if is_it(str(frame.f_globals.get("__name__", "")), frame.f_locals):
            return frame.f_locals
        frame = frame.f_back  # type: ignore[assignment]  # typeshed: the last one has none
    return None


def _add_hook(cfg: Any) -> None:
    """Join after what `post_worker_init` does already, unless that is to join."""
    setting = cfg.settings["post_worker_init"]
    before = setting.get()
    if getattr(before, "__module__", "").startswith("sessile."):
        return

    def post_worker_init(worker: Any) -> None:
        before(worker)
        join_gunicorn(worker)

    setting.set(post_worker_init)


def _after_uwsgi_forks(uwsgi: Any) -> None:
    """Join in each worker, after what is called there already."""
    with contextlib.suppress(ImportError):
        chain: list[Any] = import_module("uwsgidecorators").postfork_chain  # its hook, set now or later, calls these
        if _join_uwsgi not in chain:
            chain.append(_join_uwsgi)
        return
    before = getattr(uwsgi, "post_fork_hook", None)
    if before is _join_uwsgi or getattr(before, "__module__", "") == __name__:
        return

    def post_fork_hook() -> None:
        if before is not None:
            before()
        _join_uwsgi()

    uwsgi.post_fork_hook = post_fork_hook


def _join_uwsgi() -> None:
    try:
        join()
    except SessileError as error:
        log_once(error)
        # While a worker is in this hook it does not hear its master, which would wait for it a minute.
        timer = threading.Timer(PAST_HOOKS_S, _stop_uwsgi)
        timer.daemon = True
        timer.start()


def _stop_uwsgi() -> None:
    uwsgi: Any = sys.modules["uwsgi"]
    os.kill(uwsgi.masterpid() or os.getpid(), signal.SIGINT)  # `uwsgi.stop` reloads under `die-on-term`
