from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from sessile.asgi import SessionMiddleware
from sessile.lab.app import CHANGES, DELAY_MS_MAX, KEPT_MAX, About, DemoApp
from tests.fakes import SECRET
from tests.network.clusters import backend_of, free_ports, until

ABOUT = About("s1", "sticky", "round-robin", "http://127.0.0.1:8081/", "1")
KEYS = ["server", "role", "key", "new", "stale", "fields"]
Scenario = Callable[[httpx2.AsyncClient], Awaitable[None]]


def play(scenario: Scenario) -> None:
    """Let a browser act on one server."""

    async def main() -> None:
        sessions = SessionMiddleware(DemoApp(ABOUT), url="sticky://", secret=SECRET, cookie_name="sid-8080")
        transport = httpx2.ASGITransport(app=sessions)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as browser:
            await scenario(browser)
        sessions.engine.close()

    asyncio.run(main())


async def told(browser: httpx2.AsyncClient, path: str = "/api/session") -> dict[str, Any]:
    answer = await (browser.get(path) if path == "/api/session" else browser.post(path))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    data: dict[str, Any] = answer.json()
    assert list(data) == KEYS
    return data


def test_a_browser_without_a_session_is_told_so() -> None:
    """Looking makes no session: no key, no role, no cookie, however often."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        for _ in range(2):
            assert await told(browser) == dict(zip(KEYS, ["s1", "none", "", True, False, {}], strict=True))
        assert not browser.cookies

    play(scenario)


def test_the_answer_that_begins_a_session_has_its_key() -> None:
    """`new` says that it began here; the next answer has the same key and is not new. The cookie's name has the port."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        first = await told(browser, "/api/set?name=a&value=x+y%C3%A4")
        assert (first["role"], first["new"], first["fields"]) == ("primary", True, {"a": "x yä"})
        assert len(bytes.fromhex(first["key"])) == 16
        assert any(name.endswith("sid-8080") for name in browser.cookies)
        assert await told(browser) == {**first, "new": False}

    play(scenario)


def test_a_server_that_is_left_alone_says_so() -> None:
    """What others should hold is in its memory only; with another server there it is not."""
    ports = free_ports(2)
    members = ",".join(f"127.0.0.1:{port}" for port in ports)

    def server(port: int) -> SessionMiddleware:
        url = f"all-to-all://?members={members}&me=127.0.0.1:{port}"
        return SessionMiddleware(DemoApp(ABOUT), url=url, secret=SECRET, tls="off", cookie_name="sid-8080")

    async def main() -> None:
        first, second = (server(port) for port in ports)
        transport = httpx2.ASGITransport(app=first)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as browser:
            answer = (await browser.post("/api/set?name=a&value=1")).json()
            assert (answer["alone"], answer["role"]) == (True, "primary")
            await backend_of(second.engine).start()
            await until(lambda: backend_of(first.engine).status()["linked"] == 1)
            assert "alone" not in (await browser.get("/api/session")).json()
        for each in (first, second):
            await backend_of(each.engine).stop()

    asyncio.run(main())


def test_counting_and_incrementing_agree_one_after_the_other() -> None:
    """Both add one to what is there."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        for path in ("count", "increment", "count", "increment"):
            last = await told(browser, f"/api/{path}?name=n")
        assert last["fields"] == {"n": 4}

    play(scenario)


def test_eight_counts_at_once_are_fewer_and_eight_increments_are_eight() -> None:
    """That is the race the page shows: each count reads before any other has written."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        await told(browser, "/api/set?name=begun&value=1")
        for path, gained in (("count", 1), ("increment", 8)):
            await asyncio.gather(*(told(browser, f"/api/{path}?name={path}&delay_ms=300") for _ in range(8)))
            assert (await told(browser))["fields"][path] == gained

    play(scenario)


def test_a_cart_is_a_set_that_merges() -> None:
    """What is put in at the same time is all there, each once; what is discarded is gone."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        for item in ("salt", "<b>bread</b>", "salt"):
            await told(browser, f"/api/cart?item={item}")
        assert (await told(browser))["fields"] == {"cart": ["<b>bread</b>", "salt"]}
        await asyncio.gather(*(told(browser, f"/api/cart?item={number}&delay_ms=300") for number in range(8)))
        assert len((await told(browser))["fields"]["cart"]) == 10
        assert len((await told(browser, "/api/discard?item=salt"))["fields"]["cart"]) == 9
        assert (await told(browser, "/api/remove?name=cart"))["fields"] == {}
        assert (await told(browser, "/api/remove?name=cart"))["fields"] == {}

    play(scenario)


def test_a_list_keeps_the_last_values_in_their_order() -> None:
    """Fifty of them."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        for number in range(KEPT_MAX + 2):
            shown = await told(browser, f"/api/append?name=log&value={number}")
        assert shown["fields"] == {"log": [str(number) for number in range(2, KEPT_MAX + 2)]}

    play(scenario)


def test_logging_in_renews_the_key_and_keeps_the_fields() -> None:
    """And logging out ends the session: nothing of it is left, and the browser is nobody."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        before = await told(browser, "/api/count?name=n")
        within = await told(browser, "/api/login?user=Ada")
        assert within["fields"] == {"n": 1, "user": "Ada"}
        assert within["key"] not in {"", before["key"]}
        assert not within["new"]
        assert (await told(browser))["key"] == within["key"]
        after = await told(browser, "/api/logout")
        assert (after["key"], after["role"], after["new"], after["fields"]) == ("", "none", True, {})
        assert await told(browser) == after

    play(scenario)


@pytest.mark.parametrize(
    "path",
    [
        *("/api/set?value=1", "/api/set?name=a", "/api/set?name=&value=1", "/api/set?name=%ff&value=1"),
        *("/api/set?name=a%00&value=1", f"/api/set?name={'a' * 300}&value=1"),
        *("/api/count", "/api/count?name=text", "/api/increment", "/api/increment?name=text"),
        *("/api/count?name=n&delay_ms=-1", "/api/count?name=n&delay_ms=x", "/api/increment?name=n&delay_ms=1.5"),
        *(f"/api/count?name=n&delay_ms={DELAY_MS_MAX + 1}", "/api/set?name=a&value=b" + "&x=y" * 20),
        *(
            "/api/cart",
            "/api/cart?item=",
            "/api/discard",
            "/api/append?name=text&value=1",
            "/api/login",
            "/api/login?user=",
            f"/api/login?user={'u' * 300}",
            "/api/remove",
        ),
    ],
)
def test_a_bad_parameter_is_400_with_the_reason_and_changes_nothing(path: str) -> None:
    """What is missing or wrong is named."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        before = await told(browser, "/api/set?name=text&value=no+number")
        answer = await browser.post(path)
        assert answer.status_code == 400
        assert len(answer.json()["error"]) > 10
        assert await told(browser) == {**before, "new": False}

    play(scenario)


def test_a_cart_that_is_no_set_is_left_alone() -> None:
    """Somebody may have set a field of that name."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        await told(browser, "/api/set?name=cart&value=full")
        assert (await browser.post("/api/cart?item=bread")).status_code == 400
        assert (await told(browser))["fields"] == {"cart": "full"}

    play(scenario)


def test_a_page_and_its_files_are_there_and_touch_no_session() -> None:
    """They may be kept by a cache, and do not depend on cookies."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        page = await browser.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "Sessile" in page.text
        assert "vary" not in page.headers
        for name in ("demo.css", "demo.js", "look.css", "dom.js"):
            assert (await browser.get(f"/static/{name}")).status_code == 200, name
        assert (await browser.get("/api/about")).json()["routing"] == "round-robin"

    play(scenario)


def test_what_is_not_there_is_404_and_what_takes_another_method_405() -> None:
    """In JSON, with the method that is allowed."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        for path in ("/nothing", "/static/", "/static/../app.py", "/static/app.py", "/demo.js", "/_lab/status"):
            answer = await browser.get(path)
            assert (answer.status_code, list(answer.json())) == (404, ["error"]), path
        for path in CHANGES:
            answer = await browser.get(path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST"), path
        answer = await browser.post("/api/session")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")

    play(scenario)


def test_a_handler_may_let_its_whole_answer_leave_and_go_on() -> None:
    """`answer=early`: the length is known before, the change is kept, and the next request sees it."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        await told(browser, "/api/count?name=n")
        answer = await browser.post("/api/count?name=n&answer=early")
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert answer.json()["fields"] == (await told(browser))["fields"] == {"n": 2}

    play(scenario)


def test_a_change_after_the_head_is_kept_and_no_cookie_tells_of_it() -> None:
    """`answer=late`: what is wrong with the request is told in the body then."""

    async def scenario(browser: httpx2.AsyncClient) -> None:
        await told(browser, "/api/count?name=n")
        answer = await browser.post("/api/count?name=n&answer=late")
        assert "set-cookie" not in answer.headers
        assert answer.json()["fields"] == (await told(browser))["fields"] == {"n": 2}
        assert "name" in (await browser.post("/api/count?answer=late")).json()["error"]
        assert (await browser.post("/api/count?name=n&answer=never")).status_code == 400

    play(scenario)
