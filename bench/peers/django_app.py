"""Django's cache sessions, in the process's memory or in Redis, and the same views without sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.peers.workload import HANDLERS, LIFETIME_S, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable

CACHES = {
    "locmem": ("django.core.cache.backends.locmem.LocMemCache", "sessions"),
    "redis": ("django.core.cache.backends.redis.RedisCache", "redis://127.0.0.1:{port}"),
}

urlpatterns: list[Any] = []


def view(handle: Callable[[Any], str]) -> Any:
    """One handler of the workload as a view; a request without a session works on one plain dict."""
    # Django is there only in this contender's own environment.
    from django.http import HttpResponse  # type: ignore[import-not-found]

    plain: dict[str, Any] = {}

    def answer(request: Any) -> Any:
        return HttpResponse(handle(getattr(request, "session", plain)), content_type="text/plain")

    return answer


def configure(store: str, redis_port: int) -> None:
    """Settings for both apps: the smallest project that has sessions."""
    import django  # type: ignore[import-not-found]
    from django.conf import settings  # type: ignore[import-not-found]
    from django.urls import path as route  # type: ignore[import-not-found]

    backend, location = CACHES[store]
    settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["shop.example"],
        ROOT_URLCONF=__name__,
        CACHES={"default": {"BACKEND": backend, "LOCATION": location.format(port=redis_port)}},
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        SESSION_COOKIE_AGE=LIFETIME_S,
        MIDDLEWARE=[],
    )
    django.setup()
    urlpatterns[:] = [route(path.strip("/"), view(handle)) for path, handle in HANDLERS.items()]


def build_both(store: str, redis_port: int) -> tuple[Any, Any]:
    """The app without sessions and the one with them; a handler keeps the middleware it was built with."""
    configure(store, redis_port)
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-not-found]

    base = WSGIHandler()
    settings.MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
    return base, WSGIHandler()
