"""What checkers see of the world, and where they put what they find.

A checker only looks: it never changes anything, and draws no chance. All of them hear of the same events, by the methods of
`Checker`; each overrides those that concern it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from typing import Protocol

    from sessile.backend import Acknowledged, Pulled
    from sessile.record import Record, Version
    from sessile.settings import Settings
    from sessile.simulation.asking import Pull, Push
    from sessile.simulation.history import History
    from sessile.simulation.options import Options
    from sessile.simulation.process import Process
    from sessile.simulation.serving import Request
    from sessile.token import SessionKey
    from sessile.visit import Step

    class Scene(Protocol):
        """The world as checkers see it."""

        options: Options
        settings: Settings
        history: History
        findings: Findings

        @property
        def now_ms(self) -> int:
            """Virtual time."""

        def living(self) -> list[Process]:
            """Every process that has not died, paused ones included."""

        def calm_for_ms(self, place: int) -> int:
            """For how long nothing was wrong with the process at this place, or with its connections; 0 while it is."""

        def is_all_well(self) -> bool:
            """Whether all that was wrong anywhere, deaths included, must be over by now."""

        def linked_for_ms(self, place: int) -> int:
            """How long ago the last fault of the network at this place was over; 0 during one."""

        def is_under_way(self) -> bool:
            """Whether something that was sent has not arrived yet."""

        def is_small(self, place: int) -> bool:
            """Whether the process at this place may have no room for a session."""

        def smooth_for_ms(self, place: int) -> int:
            """For how long the process at this place was neither paused nor slow, and its clock did not jump."""


__all__ = ["FINDINGS_MAX", "SETTLED_MS", "Checker", "Finding", "Findings", "is_calm", "knows_end", "record_of"]

FINDINGS_MAX: Final = 20
"""More than this of one run say nothing new."""
SETTLED_MS: Final = 3_000
"""So long after a fault everything about it is over: links are dialled again every two seconds at the latest."""


class Finding(Struct, frozen=True):
    """Something that must not be, in one run."""

    checker: str
    problem: str
    at_ms: int


class Findings:
    """What was found, in order."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, checker: str, at_ms: int, problem: str) -> None:
        if len(self.found) < FINDINGS_MAX:
            self.found.append(Finding(checker, problem, at_ms))


class Checker:
    """Hears of everything and looks at nothing; those that look derive from it.

    Args:
        scene: the world.
    """

    name = ""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def find(self, problem: str) -> None:
        """Report what must not be."""
        self.scene.findings.add(self.name, self.scene.now_ms, problem)

    def opened(self, request: Request) -> None:
        """A handler has looked at its session."""

    def committed(self, request: Request, steps: list[Step], before: Version) -> None:
        """What a handler did is in the table; `before` is the version that a rotation carried over."""

    def asked(self, request: Request, question: Pull | Push) -> None:
        """A request waits for its node."""

    def answered(self, request: Request, question: Pull | Push, result: Pulled | Acknowledged) -> None:
        """What a request waited for is there."""

    def responded(self, request: Request, status: int, cookies: list[bytes]) -> None:
        """The head of an answer leaves."""

    def dies(self, process: Process) -> None:
        """A process is about to die."""

    def leaves(self, process: Process, *, is_clean: bool) -> None:
        """A process is about to end in good order; `is_clean`: its node said that nothing is left in it."""

    def starts_over(self, process: Process) -> None:
        """A process is about to drop all that it holds, since it was apart for longer than ends are remembered."""

    def is_quiet(self) -> None:
        """Faults and requests are over, and the copies alike."""


def knows_end(process: Process, key: SessionKey) -> bool:
    """Whether a process remembers that the session has ended."""
    return process.engine.table.has_ended(key)


def record_of(process: Process, key: SessionKey) -> Record | None:
    """What a process holds of a session."""
    found = process.engine.table.find(key)
    return None if found is None else found[1]


def is_calm(scene: Scene, process: Process) -> bool:
    """Whether all that was wrong with a process must be over by now."""
    return scene.calm_for_ms(process.place) >= SETTLED_MS
