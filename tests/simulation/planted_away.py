"""Bugs of ends that come late: to servers that were away, full, or busy, and after tombstones are gone.

And of what has to reach others though a link was lost or a queue full. All are planted as those of `planted.py` are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

from sessile.ends import Ends
from sessile.engine import Engine
from sessile.record import Record
from sessile.replication.node import Node
from sessile.replication.pushes import Pushes
from sessile.replication.repair import _Pass
from sessile.replication.telling import Telling
from sessile.replication.tombstones import Tombstones
from sessile.session import Opened
from sessile.table import Table
from tests.simulation.planting import edited, planting

if TYPE_CHECKING:
    from collections.abc import Iterator


@planting("an end is forgotten with its tombstone")
def _() -> Iterator[None]:
    """What ended ten minutes ago is over everywhere by now."""
    with patch.object(Ends, "add", lambda self, key, until_ms, **_: None):
        yield


@planting("a slow request with a replaced id begins a session")
def _() -> Iterator[None]:
    """There is nothing under this id any more, so it is as good as none."""
    with patch("sessile.engine._PAST", Opened()), patch.object(Engine, "_check_not_replaced", lambda *_: None):
        yield


@planting("a full server has no room for an end")
def _() -> Iterator[None]:
    """A limit is a limit: tombstones take memory like anything else."""
    with edited(Table, "_enter", "if not is_tombstone:", "if not is_tombstone or old is None:"):
        yield


@planting("a long request writes a session back")
def _() -> Iterator[None]:
    """Who opened a session may write to it: its handler has been let in."""
    asked = "key in self.table.ends"
    refused = "key in self.ends"
    with edited(Engine, "_current", asked, "False"), edited(Table, "_enter", refused, "False"):
        yield


@planting("a server that was away believes itself")
def _() -> Iterator[None]:
    """Whatever happened meanwhile waits in its sockets."""
    with (
        patch.object(Node, "_was_away", lambda self: None),
        edited(Node, "is_sure", "now_ms < self._pulse.sure_until_ms", "True"),
    ):
        yield


@planting("the pulse is not looked at")
def _() -> Iterator[None]:
    """A node that was away notices it soon enough by itself: no thread need compare any times."""
    with edited(Node, "is_sure", "now_ms < self._pulse.sure_until_ms", "self._pulse.is_trusted"):
        yield


@planting("a member asks for what ended since its link was lost")
def _() -> Iterator[None]:
    """While a link was up everything came over it. What is read after a stop came over it as well."""
    with (
        edited(Tombstones, "link_lost", "min(until_ms, lost_ms)", "context.now_ms"),
        edited(Telling, "_asked_for", "if peer.told_ms is None:", "if False:"),  # nor does the other side see to it
    ):
        yield


@planting("peers take fewer writers than servers draw")
def _() -> Iterator[None]:
    """No session needs that many: a record that has more is broken, and whoever sends it as well."""
    with edited(Record, "_check_version", "places > WRITERS_MAX", "places > 3"):
        yield


@planting("what a link loses of uses is lost")
def _() -> Iterator[None]:
    """A session that is in use is used again in a moment, and that is told."""
    with edited(_Pass, "count", "if touched_ms > self.since_ms.get(name, touched_ms):", "if False:"):
        yield


@planting("only repair goes on with repair")
def _() -> Iterator[None]:
    """What is under way to a peer is repair's own: when that has arrived, more is sent."""
    with edited(Node, "_acked", "if peer.repairing:", "if False:"):
        yield


@planting("those who have no room are waited for")
def _() -> Iterator[None]:
    """Somebody may make room within the time that is allowed."""
    with patch.object(Pushes, "_is_hopeless", lambda self, push: False):
        yield
