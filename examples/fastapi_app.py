"""A FastAPI service with sessions: run it with `uvicorn fastapi_app:app`."""

from fastapi import FastAPI, Request

from sessile.asgi import SessionMiddleware

app = FastAPI()
app.add_middleware(SessionMiddleware)  # SESSILE_SECRET holds the secret, SESSILE_URL where sessions are


@app.post("/cart")
async def add(request: Request, item: str) -> dict[str, object]:
    """Put something into the cart. A change inside a list is noticed."""
    cart = request.session.setdefault("cart", [])
    cart.append(item)
    return {"cart": cart, "visits": request.session.increment("visits")}  # type: ignore[attr-defined]


@app.post("/login")
async def login(request: Request, user: str) -> dict[str, str]:
    """Bind the session to a user, under a new id."""
    request.session.login(user)  # type: ignore[attr-defined]
    return {"user": user}
