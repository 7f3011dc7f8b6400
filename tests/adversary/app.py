import json
from sessile.asgi import SessionMiddleware

async def _app(scope, receive, send):
    if scope["type"] != "http":
        return
    s = scope["session"]
    if scope["path"] == "/login":
        s["user"] = "ann"
    if scope["path"] == "/logout":
        s.logout()
    body = json.dumps(dict(s)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

app = SessionMiddleware(_app)
