"""Lets the engines of a WSGI app join their cluster or store when the worker process of the server starts.

WSGI has no event for the start of a server (PEP 3333). A member that joined at its first request would miss what leaving
servers hand over before that. So an engine enrols here when its middleware is built, and joins

- under gunicorn, in `post_worker_init`: either `sessile.gunicorn` is the configuration, or `enrol` adds a hook to gunicorn's
  own configuration, which it finds on the call stack while gunicorn loads the app;
- under uWSGI, after the fork, or at once in a worker that loads the app itself (`lazy-apps`);
- elsewhere, when `join` is called, or at the first request. A request that needs no session, such as a health check, does not
  wait for it (`join_soon`).

A worker that cannot join logs the reason as one line, and the server stops instead of starting it again.
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
"""Engine → id of the process in which `join_soon` is joining it."""
_tasks: Final[set[asyncio.Task[None]]] = set()
"""References to running tasks, so that they are not garbage-collected."""
_SERVERS: Final = frozenset({"daphne", "granian", "gunicorn", "hypercorn", "uvicorn"})
"""Packages whose code is on the call stack while they load an app."""
_GUNICORN: Final = frozenset({"gunicorn.arbiter", "gunicorn.workers.base"})
"""The modules of gunicorn in which `self.app.wsgi()` loads the app: in the master with `--preload`, else in the worker."""
BOOT_ERROR: Final = 3
"""gunicorn's `Arbiter.WORKER_BOOT_ERROR`: a worker that exits with it stops the master."""
TURN_S: Final = 2.0
"""Pause between workers that exit: longer than gunicorn takes to notice that a worker has exited."""
POLL_S: Final = 0.05
PAST_HOOKS_S: Final = 5.0
"""After this time, uWSGI's other workers have left the hook that runs after the fork."""


def enrol(engine: Engine) -> None:
    """Let this engine join when the worker process starts. Does no IO, except in a uWSGI worker that loads the app itself."""
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
    """Let the engines of all WSGI middlewares in this process join their cluster, or connect to their store.

    Call this in the hook that your server runs in each worker process; `sessile.gunicorn` does so for gunicorn.

    Raises:
        SettingsError: an engine cannot join. The message names the setting and the remedy.
    """
    for engine in list(_engines):
        backend = engine.backend
        if backend is not None and not backend.is_running:
            backend.start_in_thread()


def join_soon(engine: Engine) -> None:
    """Begin to join in the background, unless that is under way. An error is logged; the next call tries again."""
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
        # When a worker exits with this status, gunicorn stops. If a second one does so while it stops, gunicorn prints a
        # traceback. So workers that fail at the same time exit one after the other.
        turn_s = TURN_S * (worker.age % max(worker.cfg.workers, 1))
        until = time.monotonic() + turn_s
        while time.monotonic() < until:
            if not worker.alive or os.getppid() != worker.ppid:
                sys.exit(0)
            time.sleep(POLL_S)
        worker.log.error("%s", error)  # noqa: TRY400  # one line: a traceback would hide the remedy
        sys.exit(BOOT_ERROR)


def is_loading() -> bool:
    """Whether a server is loading the app now. An error then need not be raised: it can be reported when the app starts."""
    return _find(lambda name, _: name.partition(".")[0] in _SERVERS) is not None


def stop_loading(error: Exception) -> None:
    """If gunicorn is loading the app now, stop it with one line in its log instead of a traceback."""
    gunicorn = _gunicorn()
    if gunicorn is not None:
        gunicorn.log.error("%s", error)
        sys.exit(BOOT_ERROR)


def _gunicorn() -> Any:
    """The arbiter or worker of gunicorn, if it is loading the app now; otherwise None."""
    frame = _find(lambda name, there: name in _GUNICORN and hasattr(there.get("self"), "cfg"))
    return None if frame is None else frame["self"]


def _find(is_it: Callable[[str, dict[str, Any]], bool]) -> dict[str, Any] | None:
    """The local variables of the nearest caller for which `is_it(module name, local variables)` is True."""
    frame = sys._getframe(2)  # noqa: SLF001  # the documented way to inspect callers
    while frame is not None:
        if is_it(str(frame.f_globals.get("__name__", "")), frame.f_locals):
            return frame.f_locals
        frame = frame.f_back  # type: ignore[assignment]  # typeshed: the last one has none
    return None


def _add_hook(cfg: Any) -> None:
    """Extend gunicorn's `post_worker_init`, so that it also joins, unless it does so already."""
    setting = cfg.settings["post_worker_init"]
    before = setting.get()
    if getattr(before, "__module__", "").startswith("sessile."):
        return

    def post_worker_init(worker: Any) -> None:
        before(worker)
        join_gunicorn(worker)

    setting.set(post_worker_init)


def _after_uwsgi_forks(uwsgi: Any) -> None:
    """Join in each worker after the fork, after the hooks that are set already."""
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
        # While a worker runs this hook it ignores its master, which would wait a minute for it. So stop the master later.
        timer = threading.Timer(PAST_HOOKS_S, _stop_uwsgi)
        timer.daemon = True
        timer.start()


def _stop_uwsgi() -> None:
    uwsgi: Any = sys.modules["uwsgi"]
    os.kill(uwsgi.masterpid() or os.getpid(), signal.SIGINT)  # `uwsgi.stop` reloads under `die-on-term`
