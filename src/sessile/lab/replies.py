"""The few kinds of answers that the demo's servers give, as ASGI messages."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["Message", "Receive", "Send", "begin_json", "json_bytes", "send_json", "send_whole"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def json_bytes(data: object) -> bytes:
    """Compact UTF-8 JSON; what JSON does not know is told as text."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=str).encode()


async def send_whole(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    """An answer whose length is known."""
    fields = {**headers, "Content-Length": str(len(body))}
    await send({"type": "http.response.start", "status": status, "headers": _raw(fields)})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, data: object, headers: dict[str, str] | None = None) -> None:
    """A whole answer in JSON; nobody may keep it."""
    fields = {"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})}
    await send_whole(send, status, json_bytes(data), fields)


async def begin_json(send: Send, length: int | None = None) -> None:
    """Send the head of a JSON answer, whose body is yet to be sent; of this length, where it is known."""
    fields = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    if length is not None:
        fields["Content-Length"] = str(length)
    await send({"type": "http.response.start", "status": 200, "headers": _raw(fields)})


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
