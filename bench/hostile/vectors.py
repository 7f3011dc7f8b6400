"""All vectors in one list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.hostile import vectors_bodies, vectors_fields, vectors_forwarding, vectors_framing, vectors_heads

if TYPE_CHECKING:
    from bench.hostile.vector import Vector

__all__ = ["all_vectors"]

PARTS = (vectors_heads, vectors_fields, vectors_framing, vectors_bodies, vectors_forwarding)


def all_vectors() -> list[Vector]:
    """Every vector, each under a name of its own."""
    return [vector for part in PARTS for vector in part.vectors()]
