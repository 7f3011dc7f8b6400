"""A request as an adapter and a handler make it, step by step."""

from __future__ import annotations

from sessile.simulation.browsers import Jar
from sessile.simulation.history import GONE
from sessile.simulation.serving import Op, Request, Verb, Work
from tests.simulation.scenes import calm_world


def serve(*works: Work) -> list[Request]:
    """Requests of one browser, at one server, one after the other."""
    world = calm_world()
    jar, process = Jar(1), world.living()[0]
    made = []
    for number, work in enumerate(works, 1):
        request = Request(number, jar, jar.header, work, world)
        request.process = process
        world.traffic._by_request[request] = (None, 3)
        process.serve(request)
        world.schedule.run_until(world.now_ms + 300)
        made.append(request)
    assert not world.findings.found
    return made


def test_a_handler_s_changes_are_kept_and_seen() -> None:
    """What one request set the next one finds; both are answered."""
    ops = (Op(Verb.SET, "a", 1), Op(Verb.COUNT, "n"), Op(Verb.INCREMENT, "hits"), Op(Verb.APPEND, "list", 5))
    first, second = serve(Work(ops), Work())
    assert (first.status, second.status) == (200, 200)
    assert first.saw == {} and second.saw == {"a": 1, "n": 1, "hits": 1, "list": [5]}


def test_sets_and_lists_are_kept_and_seen() -> None:
    """Over a new id as well; what is no collection is left alone."""
    ops = (Op(Verb.ADD, "s", 1), Op(Verb.ADD, "s", 2), Op(Verb.PUSH, "l", 3), Op(Verb.SET, "plain", 4))
    change = (Op(Verb.DISCARD, "s", 1), Op(Verb.DISCARD, "s", 9), Op(Verb.ADD, "plain", 1), Op(Verb.LOGIN, value="u"))
    first, _, third = serve(Work(ops), Work(change), Work((Op(Verb.REMOVE, "l"), Op(Verb.PUSH, "l", 5))))
    assert first.saw == {} and third.saw == {"s": (2,), "l": (3,), "plain": 4}
    assert serve(Work(ops), Work((Op(Verb.SET, "s", 7), Op(Verb.REMOVE, "l"))), Work())[2].saw == {"s": 7, "plain": 4}


def test_the_id_changes_and_the_session_ends() -> None:
    """After a login the data is there under another key; after a logout it is not."""
    first, second = serve(Work((Op(Verb.SET, "a", 1), Op(Verb.LOGIN, value="u"))), Work())
    assert second.saw == {"a": 1} and second.subject == "u" and first.key != second.key
    last = serve(Work((Op(Verb.SET, "a", 1),)), Work((Op(Verb.LOGOUT),)), Work())[2]
    assert last.saw == {} and last.record is None


def test_slow_and_late_handlers_take_their_time() -> None:
    """A late change is kept, though no cookie tells of it."""
    first, second = serve(Work((Op(Verb.SET, "a", 1),), 20, (Op(Verb.SET, "b", 2),), 10), Work())
    assert second.saw == {"a": 1, "b": 2} and not first.work.is_repeatable and Work().is_repeatable
    assert repr(GONE) == "GONE" and "set+set" in repr(first)
