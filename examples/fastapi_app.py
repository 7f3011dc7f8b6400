"""A FastAPI service with sessions: run it with `uvicorn fastapi_app:app`."""

from fastapi import FastAPI, Request, Response

from sessile import Session
from sessile.asgi import SessionMiddleware

service = FastAPI()
# SESSILE_SECRET holds the secret, SESSILE_URL where sessions are; settings may stand here, too: idle_timeout="15m"
app = SessionMiddleware(service, exclude=["/healthz"])


@service.post("/cart")
async def add(request: Request, item: str) -> dict[str, object]:
    """Put something into the cart."""
    session: Session = request.scope["session"]
    session.add_to("cart", item)  # parallel additions are all there
    return {"cart": session["cart"], "visits": session.increment("visits")}  # parallel increments all count


@service.get("/cart")
async def look(request: Request) -> dict[str, object]:
    """What is in the cart."""
    session: Session = request.scope["session"]
    return {"cart": session.get("cart", ()), "visits": session.get("visits", 0)}


@service.delete("/cart")
async def discard(request: Request, item: str) -> dict[str, object]:
    """Take something out of the cart."""
    session: Session = request.scope["session"]
    session.discard_from("cart", item)
    return {"cart": session.get("cart", ())}


@service.post("/login")
async def login(request: Request, user: str) -> dict[str, str]:
    """Bind the session to a user, under a new id."""
    session: Session = request.scope["session"]
    session.login(user)
    return {"user": user}


@service.get("/healthz")
async def healthz(response: Response) -> None:
    """Whether a balancer may send requests here."""
    response.status_code = 200 if app.engine.is_ready else 503
