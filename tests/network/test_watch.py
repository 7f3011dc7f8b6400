"""The members of a cluster, as a balancer learns them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sessile.network import tls
from sessile.network.watch import Served, Watch
from tests.fakes import SECRET
from tests.network.clusters import backend_of, engines_of, kill, ran, until

if TYPE_CHECKING:
    import pytest

    from sessile.engine import Engine


def name_of(engine: Engine) -> str:
    return engine.settings.me


def test_joins_leaves_and_ends_are_learned_from_any_member(caplog: pytest.LogCaptureFixture) -> None:
    """Told one, it knows all; when that one dies it asks another; strangers and the silent tell it nothing."""

    async def run() -> None:
        engines = engines_of(4, tls="secret")
        for number, engine in enumerate(engines[:3]):
            object.__setattr__(engine.settings, "serves", f"10.0.0.{number}:80")
        contexts = tls.contexts([SECRET.encode()], "sessile", "balancer")
        told: list[tuple[Served, ...]] = []
        watch = Watch(["127.0.0.1:1", name_of(engines[0])], told.append, contexts.client, every_s=0.05)
        assert not await watch.look()
        watching = asyncio.create_task(watch.run())
        await backend_of(engines[0]).start()
        await until(lambda: bool(told))
        assert told[-1] == (Served(name_of(engines[0]), "10.0.0.0:80", False),)
        for engine in engines[1:]:
            await backend_of(engine).start()
        await until(lambda: {each.address for each in told[-1]} == {f"10.0.0.{number}:80" for number in range(3)})
        await kill(engines[0])
        await backend_of(engines[1]).stop()
        await until(lambda: name_of(engines[1]) not in {each.name for each in told[-1]})
        watching.cancel()
        assert backend_of(engines[2]).status()["linked"] == 1
        stranger = tls.contexts([b"another secret, of somebody else"], "sessile", "balancer")
        caplog.clear()
        watch = Watch([name_of(engines[2])], told.append, stranger.client)
        assert not await watch.look() and not await watch.look()
        (said,) = (each.getMessage() for each in caplog.records if "no member" in each.message)
        assert name_of(engines[2]) in said and "SESSILE_SECRET" in said
        (door,) = (runtime._door for engine in engines[2:3] if (runtime := backend_of(engine)._runtime) is not None)
        assert door is not None
        await until(lambda: not door._unproven)  # both sides have noticed that they are strangers
        for engine in engines[2:]:
            await kill(engine)

    ran(run())
