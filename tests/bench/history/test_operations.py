"""What is recorded of one request."""

from __future__ import annotations

from bench.history.operations import Operation, Verb
from tests.bench.history.recorded import recorded


def test_the_key_of_a_session_follows_from_its_cookie() -> None:
    """Nothing secret is needed for it; a version cookie alone names no session."""
    told = [operation for operation in recorded() if operation.cookies and operation.told]
    assert told
    for operation in told:
        key = (operation.told or {})["before"]["key"]
        assert key in {"", (operation.key or b"").hex()}
    first = told[0]
    versions = {name: value for name, value in first.cookies.items() if name.endswith(b"_v")}
    assert versions
    assert Operation(1, Verb.READ, cookies=versions).key is None


def test_every_verb_is_a_request_of_the_demo_and_changes_leave_a_trace() -> None:
    """Reads ask for the traces that are there."""
    paths = {verb: Operation(7, verb, "n", "v7").path for verb in Verb}
    assert paths == {
        Verb.READ: "/api/session?trace=1",
        Verb.SET: "/api/set?name=n&value=v7&trace=op-7",
        Verb.COUNT: "/api/count?name=n&trace=op-7",
        Verb.INCREMENT: "/api/increment?name=n&trace=op-7",
        Verb.LOGIN: "/api/login?user=v7&trace=op-7",
        Verb.LOGOUT: "/api/logout?&trace=op-7",
    }
    assert {Operation(7, verb).method for verb in Verb if verb is not Verb.READ} == {"POST"}
    assert Operation(7, Verb.READ).method == "GET"
