from __future__ import annotations

import re

import pytest

from sessile.dashboard.files import headers_of, load

PAGES = {"dashboard.html": load("sessile.dashboard"), "demo.html": load("sessile.dashboard", "sessile.lab")}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_only_files_that_are_served_beside_it(page: str) -> None:
    """Style sheets, scripts and what the scripts import."""
    served = PAGES[page]
    text = served[page].body.decode()
    named = re.findall(r'(?:href|src)="(/[^"]+)"', text)
    assert len(named) >= 4
    scripts = [name.removeprefix("/static/") for name in named if name.endswith(".js")]
    for script in scripts:
        named += re.findall(r'from "([^"]+)"', served[script].body.decode())
    for name in named:
        assert name.startswith("/static/"), name
        assert name.removeprefix("/static/") in served, name


@pytest.mark.parametrize("page", PAGES)
def test_a_page_keeps_to_its_policy(page: str) -> None:
    """No inline script, style or handler, which the policy would forbid, and no other origin anywhere."""
    text = PAGES[page][page].body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)
    for name, file in PAGES[page].items():
        urls = set(re.findall(r"https?://[^\"'\s)]+", file.body.decode()))
        assert urls <= {"http://www.w3.org/2000/svg"}, name
        assert "innerHTML" not in file.body.decode()


def test_a_file_is_sent_with_its_type_and_a_policy() -> None:
    """Nothing is guessed by the browser, nothing framed, nothing loaded from elsewhere."""
    headers = headers_of(PAGES["demo.html"]["demo.js"])
    assert headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_only_files_of_known_kinds_are_served() -> None:
    """Whatever else lies in the folder stays there."""
    assert {name.rpartition(".")[2] for served in PAGES.values() for name in served} == {"html", "css", "js", "svg"}
