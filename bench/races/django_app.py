"""Django's sessions: in its cache on Redis, or in a table of its database (SQLite)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.races.requests import arrive, given_by, told

ENGINES = {"cache": "django.contrib.sessions.backends.cache", "db": "django.contrib.sessions.backends.db"}

urlpatterns: list[Any] = []


def view(request: Any, verb: str) -> Any:
    """All handlers."""
    # Django is there only in this peer's own environment.
    from django.http import HttpResponse  # type: ignore[import-not-found]

    if verb == "plain":
        return HttpResponse("{}")
    given, session = given_by(request.META["QUERY_STRING"]), request.session
    dict(session.items())
    arrive(given)
    if verb == "set":
        session[given["name"]] = given["value"]
    elif verb == "rotate":
        session.cycle_key()
        session["user"] = "ann"
    elif verb == "logout":
        session.flush()
    return HttpResponse(told(session))


def build(store: str, redis_port: int) -> Any:
    """The app, with its tables where it has any."""
    import django  # type: ignore[import-not-found]
    from django.conf import settings  # type: ignore[import-not-found]
    from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-not-found]
    from django.urls import path as route  # type: ignore[import-not-found]

    name = str(Path(tempfile.mkdtemp(prefix="sessile-races-")) / "django.db")
    settings.configure(
        SECRET_KEY="races need no real secret, but a long one, so here it is",
        ALLOWED_HOSTS=["shop.example"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["django.contrib.sessions"],
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": f"redis://127.0.0.1:{redis_port}",
            }
        },
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name}},
        SESSION_ENGINE=ENGINES[store],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        LOGGING_CONFIG=None,
    )
    django.setup()
    if store == "db":
        from django.core.management import call_command  # type: ignore[import-not-found]

        call_command("migrate", verbosity=0)
    urlpatterns[:] = [route("<str:verb>", view)]
    return WSGIHandler()


def records() -> int:
    """How many sessions are in the table."""
    from django.contrib.sessions.models import Session  # type: ignore[import-not-found]

    return int(Session.objects.count())
