"""What is done to the servers while a history is made: one at a time is killed or stopped, and comes back.

Between two of these all copies have time to become whole again: what is promised holds for one server at a time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.show import CannotShow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from bench.running import Running

__all__ = ["Harm", "Trouble"]

AWAY_S: Final = (0.2, 2.5)
"""A server is dead or stopped for so long at the least and at the most."""
REPAIRED_S: Final = 2.5
"""So long after all servers see each other again, every session has its copies."""
WHOLE_S: Final = 60.0


@dataclass(slots=True)
class Trouble:
    """Something was wrong with one server."""

    server: str
    kind: str
    began_ms: int
    ended_ms: int | None = None
    """When it was ready again; None while it is not."""


class Harm:
    """All that was done to the servers."""

    def __init__(self) -> None:
        self.troubles: list[Trouble] = []

    async def do(self, running: Running, kinds: Sequence[str], rng: Random, now_ms: Callable[[], int]) -> None:
        """Do these things, each to some server, one after the other; `kill` or `pause`.

        Raises:
            CannotShow: the control API refused, or the servers did not find each other again.
        """
        names = list(await running.server_ports())
        for kind in kinds:
            victim = rng.choice(names)
            trouble = Trouble(victim, kind, now_ms())
            self.troubles.append(trouble)
            await running.act(victim, kind)
            await asyncio.sleep(rng.uniform(*AWAY_S))
            await running.act(victim, "restart" if kind == "kill" else "resume")
            if not await running.until_whole(WHOLE_S):
                raise CannotShow(f"{victim} came back, and the servers were not whole again within {WHOLE_S:g} s")
            trouble.ended_ms = now_ms()
            await asyncio.sleep(REPAIRED_S)

    def calm_for_ms(self, server: str, now_ms: int, until_ms: int) -> int:
        """For how long nothing was wrong with a server at `now_ms`; 0 if something was before `until_ms`."""
        last_ms = -1_000_000
        for trouble in self.troubles:
            if trouble.server != server or trouble.began_ms > until_ms:
                continue
            if trouble.ended_ms is None or trouble.ended_ms >= now_ms:
                return 0
            last_ms = max(last_ms, trouble.ended_ms)
        return now_ms - last_ms
