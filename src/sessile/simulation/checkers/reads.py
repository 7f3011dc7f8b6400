"""What a request sees: at least what its cookies have seen, and exactly what its version stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessile.simulation.checkers.scene import Checker
from sessile.simulation.history import is_within

if TYPE_CHECKING:
    from sessile.simulation.history import Shown
    from sessile.simulation.serving import Request

__all__ = ["Reads"]


class Reads(Checker):
    """Read-your-writes and monotonic reads along every chain of cookies, and that versions and values agree."""

    name = "reads"

    def opened(self, request: Request) -> None:
        record = request.record
        if record is None or request.key is None:
            return
        chronicle = self.scene.history.chronicles.get(request.key)
        if chronicle is None:
            self.find(f"{request} sees a session that nobody made")
            return
        try:
            closure = chronicle.closure(record.heads)
        except KeyError:
            self.find(f"{request} sees heads {record.heads}, which nobody wrote, in {chronicle}")
            return
        if closure != record.version and not request.is_read_only:
            self.find(f"{request} sees version {record.version}, whose heads stand for {closure}")
        expected = chronicle.state(record.version)
        if request.saw != expected:
            self.find(f"{request} sees {request.saw}; version {record.version} is {expected}")
        if (request.subject or "") != chronicle.subject:
            self.find(f"{request} sees subject {request.subject!r} in a session of {chronicle.subject!r}")
        shown = self._shown(request)
        if shown is None or shown.key != request.key or request.is_read_only:
            return
        if not is_within(shown.version, record.version) and not request.is_stale:
            self.find(f"{request} sees version {record.version} with a cookie that has seen {shown.version}")

    def responded(self, request: Request, status: int, cookies: list[bytes]) -> None:
        """Whatever an answer shows, its cookie tells: the next request must see it as well."""
        session = request.session
        if status != 200 or session is None or not session.accessed:
            return
        record = session.opened.record
        if record is None or request.is_read_only or cookies:
            return
        shown = self._shown(request)
        if shown is None or shown.key != session.opened.key or shown.version != record.version:
            self.find(f"{request} answers with version {record.version} and no cookie, to one that has seen {shown}")

    def _shown(self, request: Request) -> Shown | None:
        """What the browser had seen, by the version cookie it sent."""
        for pair in request.header.decode().split("; "):
            name, _, value = pair.partition("=")
            if name.endswith("_v"):
                return self.scene.history.shown.get(value)
        return None
