from __future__ import annotations

import asyncio
import signal
from typing import Any

from sessile.dashboard.server import InnerServer
from sessile.lab import ports
from sessile.lab.probe import ask


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


def test_it_serves_until_it_is_stopped_and_leaves_signals_alone() -> None:
    """Its port is free afterwards; what the loop's owner does on SIGINT and SIGTERM stays as it was."""
    listener = ports.listen(0)
    port = listener.getsockname()[1]

    async def main() -> None:
        handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        server = InnerServer(app, listener)
        server.start()
        assert await ask(port, "/", timeout_s=30) == (200, {})
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
        await server.stop()

    asyncio.run(main())
    ports.listen(port).close()


def test_stopping_what_never_started_frees_the_port() -> None:
    """Start-up may fail before."""
    listener = ports.listen(0)
    port = listener.getsockname()[1]

    async def main() -> None:
        await InnerServer(app, listener).stop()

    asyncio.run(main())
    ports.listen(port).close()
