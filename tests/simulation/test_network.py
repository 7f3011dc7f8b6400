"""Links in order, broken ones, cut ones, and dials that come to nothing."""

from __future__ import annotations

from tests.simulation.scenes import calm_world


def names(place: int, world: object) -> tuple[str, ...]:
    return world.living()[place].node.placement.names  # type: ignore[attr-defined, no-any-return]


def test_a_partition_is_noticed_and_heals() -> None:
    """Nothing passes; each side goes on with itself; afterwards they are one again."""
    world = calm_world()
    pairs = [(0, 1), (1, 0), (0, 2), (2, 0)]
    world.network.block(pairs)
    assert world.network.is_blocked(0, 1) and not world.network.is_blocked(1, 2)
    world.schedule.run_until(world.now_ms + 1_500)
    assert names(0, world) == ("s0:7400",) and names(1, world) == ("s1:7400", "s2:7400")
    world.network.unblock(pairs)
    world.schedule.run_until(world.now_ms + 3_000)
    assert {names(place, world) for place in range(3)} == {("s0:7400", "s1:7400", "s2:7400")}


def test_a_lost_connection_is_made_again() -> None:
    """Both ends hear of it, and dial."""
    world = calm_world()
    before = len(world.network.connections())
    world.network.break_connection(world.network.connections()[0])
    assert len(world.network.connections()) == before - 1
    world.schedule.run_until(world.now_ms + 1_500)
    assert len(world.network.connections()) == before


def test_frames_of_one_direction_keep_their_order_through_a_partition() -> None:
    """What stalled goes first when it heals, whatever was sent after it."""
    world = calm_world(nodes=2)
    side = world.network.connections()[0]
    got: list[bytes] = []
    side.other.process.receive = lambda _, data: got.extend(data)  # type: ignore[method-assign, assignment]
    world.network.block([(side.process.place, side.other.process.place)])
    world.network.send(side, [b"first"])
    world.schedule.run_until(world.now_ms + 20)
    world.network.extra_ms[side.process.place, side.other.process.place] = 50
    world.network.send(side, [b"second"])
    world.network.unblock([(side.process.place, side.other.process.place)])
    world.schedule.run_until(world.now_ms + 200)
    assert b"".join(got) == b"firstsecond"
