from __future__ import annotations

import asyncio
import json
from datetime import date
from decimal import Decimal
from typing import Any

from sessile.lab.replies import begin_json, json_bytes, send_json


def sent(*sending: Any) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def main() -> None:
        function, *arguments = sending
        await function(send, *arguments)

    asyncio.run(main())
    return messages


def test_what_json_does_not_know_is_told_as_text() -> None:
    """A session may hold more kinds of values than JSON; showing one is no error."""
    assert json.loads(json_bytes({"a": date(2026, 1, 2), "b": Decimal("1.5"), "c": {1}})) == {
        "a": "2026-01-02",
        "b": "1.5",
        "c": "{1}",
    }


def test_a_whole_answer_says_its_length_and_that_nobody_may_keep_it() -> None:
    """Its headers are lower-case bytes, as ASGI wants them."""
    start, body = sent(send_json, 405, {"ä": 1}, {"Allow": "GET"})
    headers = dict(start["headers"])
    assert start["status"] == 405
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"allow"] == b"GET"
    assert json.loads(body["body"]) == {"ä": 1}


def test_an_answer_that_is_yet_to_be_written_has_no_length() -> None:
    """Only its head leaves."""
    (start,) = sent(begin_json)
    assert start["status"] == 200
    assert b"content-length" not in dict(start["headers"])
