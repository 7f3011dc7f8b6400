"""A WSGI service with sessions: run it with `gunicorn wsgi_app:app`."""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from sessile.wsgi import SessionMiddleware


def service(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Count the visits of each browser."""
    session = environ["sessile.session"]
    visits = session.increment("visits")
    session.append_to("paths", environ.get("PATH_INFO", "/"), keep=10)  # the last ten, in the order of the requests
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"visit {visits}\n".encode()]


app = SessionMiddleware(service)  # SESSILE_SECRET holds the secret, SESSILE_URL where sessions are
