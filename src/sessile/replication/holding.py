"""What a process says by itself of the sessions that it holds: the half of a `Backend` that does not wait.

Every backend that has a node derives from this, wherever its node runs, so that it is said in one way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessile.replication.node import Node
    from sessile.token import SessionKey

__all__ = ["Holding"]


class Holding:
    """Answers by what this process's node knows. Whoever derives from it sets `node` before anybody asks."""

    __slots__ = ("node",)
    node: Node

    def holds(self, key: SessionKey) -> bool:
        return self.node.placement.is_holder(key)

    def is_sure(self, key: SessionKey, now_ms: int) -> bool:
        return self.node.is_sure(key, now_ms)

    def is_trusting(self) -> bool:
        return self.node.is_trusting

    def is_first_holder(self, key: SessionKey) -> bool:
        return self.node.placement.is_first(key)

    def is_settled(self, key: SessionKey) -> bool:
        return self.node.is_settled(key)

    def is_confirmed(self, key: SessionKey) -> bool:
        return self.node.is_confirmed(key)
