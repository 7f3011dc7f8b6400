"""One membership with a clock, told by hand what happens to it."""

from __future__ import annotations

from random import Random

from sessile.replication.member import Standing, Timings
from sessile.replication.membership import Greeting, Membership, Steps
from sessile.replication.messages import MemberInfo

__all__ = ["Watch", "info"]


def info(name: str, incarnation: int = 1, stage: int = 0, host: str = "") -> MemberInfo:
    return MemberInfo(name, host or f"host-{name}", incarnation, stage)


class Watch:
    """The membership of `m` and a clock."""

    def __init__(self, *named: str, rng: Random | None = None) -> None:
        self.now_ms = 1_000_000
        self.it = Membership(info("m"), Timings(), rng or Random(1))
        self.it.find(named, self.now_ms)

    def wait(self, ms: int) -> Steps:
        """Let time pass, waking as often as is asked for; all that was to be done meanwhile."""
        until_ms = self.now_ms + ms
        steps = [self.it.tick(self.now_ms)]
        while (due_ms := self.it.next_wakeup(self.now_ms)) is not None and due_ms <= until_ms:
            assert due_ms > self.now_ms, "it asks to be woken for nothing"
            self.now_ms = due_ms
            steps.append(self.it.tick(self.now_ms))
        self.now_ms = until_ms
        return Steps(tuple(a for one in steps for a in one.dial), tuple(n for one in steps for n in one.hang_up))

    def greet(self, link: int, who: MemberInfo, address: str = "") -> Greeting:
        return self.it.greet(link, who, address=address, now_ms=self.now_ms)

    def met(self, name: str, link: int, *, incarnation: int = 1, stage: int = 0) -> Greeting:
        """This member greeted and was heard."""
        greeting = self.greet(link, info(name, incarnation, stage))
        self.it.heard(link, self.now_ms)
        return greeting

    def hear(self, link: int) -> None:
        self.it.heard(link, self.now_ms)

    def down(self, link: int) -> None:
        self.it.link_down(link, self.now_ms)

    def failed(self, address: str, *, is_refused: bool = False) -> None:
        self.it.dial_failed(address, is_refused, self.now_ms)

    def told(self, *infos: MemberInfo) -> bool:
        return self.it.merge(infos, self.now_ms)

    def changes(self) -> list[tuple[Standing, Standing]]:
        return [(change.before, change.after) for change in self.it.take_changes()]
