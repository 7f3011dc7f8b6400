"""Nothing takes longer, or grows larger, than its limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessile.backend import Acknowledged
from sessile.record import LIVE
from sessile.replication.config import NodeConfig
from sessile.simulation.asking import Pull, Push
from sessile.simulation.checkers.scene import Checker, record_of

if TYPE_CHECKING:
    from sessile.backend import Pulled
    from sessile.simulation.checkers.scene import Scene
    from sessile.simulation.process import Process
    from sessile.simulation.serving import Request

__all__ = ["Bounds"]

SLACK_MS: Final = 30
END_TIMEOUT_MS: Final = NodeConfig(name="", host="").end_timeout_ms
COOKIE_BYTES_MAX: Final = 1_500
OUTSTANDING_BYTES_MAX: Final = 5 * 2**20


class Bounds(Checker):
    """Times every question, and weighs cookies, queues and versions."""

    name = "bounds"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._asked_ms: dict[Request, int] = {}
        self._writers: set[int] = set()
        """Every tag that wrote; only counted."""

    def asked(self, request: Request, question: Pull | Push) -> None:
        del question
        self._asked_ms[request] = self.scene.now_ms
        assert request.process is not None, "a request that asks runs at a process"
        self._look(request.process)

    def _look(self, process: Process) -> None:
        """Check that records which wait for a peer are sent as soon as nothing is under way to it."""
        for peer in process.node.peers.values():
            if peer.repairing and not peer.outstanding:
                self.find(f"{process} has {len(peer.repairing)} records to send to {peer.name}, and waits for nothing")

    def _are_full(self, process: Process) -> bool:
        """Whether no other process has room."""
        return all(self.scene.is_small(other.place) for other in self.scene.living() if other is not process)

    def _waits_for_an_end(self, process: Process, request: Request, question: Push) -> bool:
        """Whether the request waits for an end, of its own or of another request, which may take longer."""
        record = record_of(process, question.key)
        return request.ended is not None or (record is not None and record.state != LIVE)

    def answered(self, request: Request, question: Pull | Push, result: Pulled | Acknowledged) -> None:
        scene = self.scene
        process = request.process
        assert process is not None, "a request that waits runs at a process"
        took_ms = scene.now_ms - self._asked_ms.pop(request)
        limit_s = scene.settings.pull_timeout if isinstance(question, Pull) else scene.settings.ack_timeout
        if isinstance(question, Push) and self._waits_for_an_end(process, request, question):
            limit_s = max(limit_s, END_TIMEOUT_MS / 1_000)
        if took_ms > round(limit_s * 1_000) + SLACK_MS and scene.smooth_for_ms(process.place) > took_ms:
            self.find(f"{request} waited {took_ms} ms for {type(question).__name__}, {result}")
        if result is Acknowledged.NO and scene.is_all_well():
            if not scene.options.rooms:
                self.find(f"{request} waited for acknowledgement in vain while all is well")
            elif took_ms >= round(limit_s * 1_000) and self._are_full(process):
                self.find(f"{request} waited {took_ms} ms for those who have no room")

    def responded(self, request: Request, status: int, cookies: list[bytes]) -> None:
        for cookie in cookies:
            if len(cookie) > COOKIE_BYTES_MAX:
                self.find(f"{request} ({status}) is given a cookie of {len(cookie)} bytes")

    def is_quiet(self) -> None:
        chronicles = self.scene.history.chronicles.values()
        writers = {stamp.writer for chronicle in chronicles for stamp in chronicle.writes}
        for process in self.scene.living():
            self._look(process)
            if errors := process.node.counts["protocol_errors"]:
                self.find(f"{process} counts {errors} protocol errors, and everybody keeps to the protocol")
            if process.node.waiting["outstanding_bytes"] > OUTSTANDING_BYTES_MAX:
                self.find(f"{process} has {process.node.waiting} under way")
            table = process.engine.table
            for key in table:
                found = table.find(key)
                if found is not None and not found[1].version.keys() <= writers:
                    self.find(f"{process} holds version {found[1].version}, with writers that wrote nothing")
