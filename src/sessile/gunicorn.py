"""A configuration of gunicorn: `gunicorn --config python:sessile.gunicorn service:app`.

In a gunicorn.conf.py of your own: `from sessile.gunicorn import post_worker_init`.

Each worker joins its cluster, or connects to its store, before it takes a request. A worker that cannot join logs the reason
as one line, and gunicorn stops. A plain `gunicorn service:app` does the same (`servers.py`), except after a reload (SIGHUP)
with `--preload`, for which this configuration is needed.
"""

from sessile.servers import join_gunicorn as post_worker_init

__all__ = ["post_worker_init"]
