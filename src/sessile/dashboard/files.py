"""The static files of a page: read once from the package, answered with headers that let them do nothing else.

No build step and no other origin: the Content-Security-Policy allows what is served beside the page, and nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Final

__all__ = ["File", "headers_of", "load"]

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class File:
    """One file, ready to be sent."""

    body: bytes
    content_type: str


def load(*packages: str) -> dict[str, File]:
    """The files in the `static` folders of these packages, by name; a later package wins."""
    found = {}
    for package in packages:
        for entry in resources.files(package).joinpath("static").iterdir():
            suffix = entry.name[entry.name.rfind(".") :]
            if suffix in _TYPES:
                found[entry.name] = File(entry.read_bytes(), _TYPES[suffix])
    return found


def headers_of(file: File) -> dict[str, str]:
    """The response headers that go with a file."""
    return {
        "Content-Type": file.content_type,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
