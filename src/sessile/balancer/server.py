"""Running a balancer: its port, its worker processes, its signals, its log.

One worker runs in this process. Several are forked, each with a socket of its own on the one port (SO_REUSEPORT), and
the parent only watches: it passes SIGHUP on, stops them all on SIGTERM or SIGINT, and replaces one that died. SIGHUP
reads the settings anew for servers, weights and algorithm; nothing under way is disturbed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sessile.balancer.settings import Limits
from sessile.balancer.worker import Worker, require_secret
from sessile.errors import BalancerError, SessileError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from sessile.balancer.settings import BalancerSettings, ServerAddress

    Learn = Callable[[BalancerSettings, Callable[[tuple[ServerAddress, ...]], None]], Coroutine[Any, Any, None]]

__all__ = ["Log", "serve"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
RESPAWN_S: Final = 0.5
"""A worker that dies is replaced, but not faster than this."""


@dataclass(frozen=True, slots=True)
class Log:
    """One line per event on stdout: for people, or as JSON for programs."""

    is_json: bool = False

    def __call__(self, event: str, fields: dict[str, object]) -> None:
        if self.is_json:
            line = json.dumps({"event": event, **fields})
        else:
            line = f"sessile balance: {_sentence(event, fields)}"
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


def _sentence(event: str, fields: dict[str, object]) -> str:
    if event == "listening":
        return f"listening on {fields['url']}"
    if event == "server":
        return f"server {fields['name']} is {fields['state']} ({fields['reason']})"
    if event in {"reloaded", "learned"}:
        how = "settings read again: servers" if event == "reloaded" else "servers learned from members:"
        return f"{how} {', '.join(map(str, fields['servers']))}"  # type: ignore[call-overload]
    if event == "cut":
        return f"stopping: {fields['connections']} connections were cut"
    return f"{event}: {fields.get('message', '')}"


def serve(
    settings: BalancerSettings,
    log: Log,
    reread: Callable[[], BalancerSettings],
    learn: Learn | None = None,
) -> int:
    """Run until told to stop; returns the exit status.

    Args:
        settings: of the balancer.
        log: hears of events.
        reread: gives the settings anew on SIGHUP.
        learn: where `settings.members` names a cluster: tells of its servers until cancelled.
    """
    require_secret(settings)
    if not settings.servers and not settings.members:
        raise BalancerError(
            "no server to balance: give --server NAME=HOST:PORT, or --member HOST:PORT of a cluster, or [servers] or "
            "members in the config file"
        )
    learner = None if learn is None or not settings.members else learn
    settings = replace(settings, limits=_fit_to_files(settings, log))
    reserved = bind(settings.listen, is_shared=settings.workers > 1)
    settings = replace(settings, listen=(settings.listen[0], reserved.getsockname()[1]))
    if settings.workers == 1:
        return _run_worker(settings, reserved, log, reread, lambda: _announce(settings, log), learn=learner)
    with reserved:
        return _Parent(settings, log, reread, learner).run()


def bind(address: tuple[str, int], *, is_shared: bool) -> socket.socket:
    """A socket bound to the address; raises BalancerError when somebody listens there."""
    host, port = address
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # SO_REUSEPORT would let us share the port with a stranger of the same user: look first without it.
        for shared in (False, True)[: 1 + is_shared]:
            sock = socket.socket(family, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                sock.bind(where)
                if not is_shared:
                    sock.listen(1)
            except OSError:
                sock.close()
                raise
            if is_shared and not shared:
                where = (where[0], sock.getsockname()[1], *where[2:])
                sock.listen(1)
                sock.close()
    except OSError as error:
        text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise BalancerError(f"cannot listen on {text}: {error.strerror or error}; choose another --listen") from None
    return sock


def _announce(settings: BalancerSettings, log: Log) -> None:
    host, port = settings.listen
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log("listening", {"url": url, "pid": os.getpid(), "workers": settings.workers})


def _fit_to_files(settings: BalancerSettings, log: Log) -> Limits:
    """Take as many descriptors as the system lets us have, and accept no more connections than those are enough for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = settings.limits
    needed = limits.descriptors + len(settings.servers)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return limits
    fitting = limits.fitted_to(soft - len(settings.servers))
    if limits.connections == Limits().connections:  # nobody named a number
        return fitting
    log(
        "warning",
        {
            "message": f"{limits.connections} connections need {needed} descriptors, and this process may have {soft}: "
            f"{fitting.connections} are accepted; raise the limit with `ulimit -n {needed}`, or set connections in [limits] "
            "of the config file to less"
        },
    )
    return fitting


def _run_worker(
    settings: BalancerSettings,
    sock: socket.socket,
    log: Callable[[str, dict[str, object]], None],
    reread: Callable[[], BalancerSettings],
    ready: Callable[[], None],
    *,
    learn: Learn | None,
) -> int:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        worker = Worker(settings, log)
        given = settings
        learned: tuple[ServerAddress, ...] = ()

        def apply(event: str) -> None:
            names = {server.name for server in given.servers}
            worker.reload(
                given.with_servers((*given.servers, *(one for one in learned if one.name not in names))), event
            )

        def reload() -> None:
            nonlocal given
            try:
                given = reread()
                apply("reloaded")
            except SessileError as error:
                log("not reloaded", {"message": str(error)})

        def told(servers: tuple[ServerAddress, ...]) -> None:
            nonlocal learned
            learned = servers
            apply("learned")

        learning = None if learn is None else loop.create_task(learn(settings, told))

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, reload)
        await worker.start(sock)
        ready()
        await stopping.wait()
        if learning is not None:
            learning.cancel()
        await worker.stop()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - optional: without it asyncio's own loop serves, slower
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class _Parent:
    """Watches over forked workers; serves nothing itself."""

    def __init__(
        self, settings: BalancerSettings, log: Log, reread: Callable[[], BalancerSettings], learn: Learn | None = None
    ) -> None:
        self._learn = learn
        self._settings = settings
        self._log = log
        self._reread = reread
        self._workers: dict[int, int] = {}
        self._is_stopping = False

    def run(self) -> int:
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        ready, told = os.pipe()
        for index in range(self._settings.workers):
            self._spawn(index, told)
        os.close(told)
        waiting = self._settings.workers
        while waiting and not self._is_stopping and (tokens := os.read(ready, waiting)):
            waiting -= len(tokens)
        os.close(ready)
        if not waiting:
            _announce(self._settings, self._log)
        return self._watch()

    def _spawn(self, index: int, told: int | None = None) -> None:
        # Held back meanwhile, or the child could take one by this handler, which is its parent's, and never end.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid:
            self._workers[pid] = index
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            if self._is_stopping:
                os.kill(pid, signal.SIGTERM)
            return
        status = 1
        try:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            # All workers see the same servers; one of them tells. What is wrong may be seen by any of them.
            log = self._log if index == 0 else _warnings_of(self._log)
            sock = bind_again(self._settings.listen)
            status = _run_worker(self._settings, sock, log, self._reread, lambda: _tell(told), learn=self._learn)
        finally:
            sys.stdout.flush()
            os._exit(status)

    def _watch(self) -> int:
        worst = 0
        while self._workers:
            pid, status = os.waitpid(-1, 0)
            index = self._workers.pop(pid, None)
            if index is None:
                continue
            if self._is_stopping:
                # One that was told to stop before it had begun to listen to signals ends by the signal: that is in order.
                worst = max(worst, os.waitstatus_to_exitcode(status) not in {0, -signal.SIGTERM})
                continue
            self._log("worker", {"message": f"worker {index} ended ({os.waitstatus_to_exitcode(status)}); replaced"})
            time.sleep(RESPAWN_S)
            self._spawn(index)
        return int(worst)

    def _on_signal(self, number: int, frame: object) -> None:
        del frame
        if number != signal.SIGHUP:
            self._is_stopping = True
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if number == signal.SIGINT else number)


def bind_again(address: tuple[str, int]) -> socket.socket:
    """One more socket on a port that is ours already."""
    family, kind, _, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(where)
    return sock


def _tell(ready: int | None) -> None:
    """Let the parent know that this worker accepts; one that replaces another has nobody to tell."""
    if ready is not None:
        os.write(ready, b".")


def _warnings_of(log: Log) -> Callable[[str, dict[str, object]], None]:
    """The log of a worker that says nothing of what the first one says."""

    def say(event: str, fields: dict[str, object]) -> None:
        if event == "warning":
            log(event, fields)

    return say
