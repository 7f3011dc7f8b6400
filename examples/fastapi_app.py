"""A FastAPI service with sessions: run it with `uvicorn fastapi_app:app`."""

from fastapi import FastAPI, Request

from sessile.asgi import SessionMiddleware

app = FastAPI()
app.add_middleware(SessionMiddleware)  # SESSILE_SECRET holds the secret, SESSILE_URL where sessions are


@app.post("/cart")
async def add(request: Request, item: str) -> dict[str, object]:
    """Put something into the cart. What parallel requests put in is there as well."""
    session = request.session
    session.add_to("cart", item)  # type: ignore[attr-defined]
    return {"cart": session["cart"], "visits": session.increment("visits")}  # type: ignore[attr-defined]


@app.delete("/cart")
async def discard(request: Request, item: str) -> dict[str, object]:
    """Take something out of the cart."""
    request.session.discard_from("cart", item)  # type: ignore[attr-defined]
    return {"cart": request.session.get("cart", ())}


@app.post("/login")
async def login(request: Request, user: str) -> dict[str, str]:
    """Bind the session to a user, under a new id."""
    request.session.login(user)  # type: ignore[attr-defined]
    return {"user": user}
