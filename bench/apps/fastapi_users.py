"""The peer: Weir's flow as an experienced FastAPI user writes it, all in one process.

Rate limit (token, then address) → Bearer token → user profile on cache and SQLite → CORS and RateLimit
headers → audit row. Run it with one uvicorn worker on httptools and uvloop. Where idioms differ, the
faster one was taken; bench/README.md lists the choices.

    PEER_DB=peer.db python -m bench.apps.fastapi_users token --subject s --scope users:read
    PEER_DB=peer.db uvicorn bench.apps.fastapi_users:app --loop uvloop --http httptools --no-access-log
"""

import argparse
import asyncio
import hashlib
import os
import secrets
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Generic, TypeVar

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from bench.apps.fastapi_store import Audit, Grant, NewUser, Store, User

USER_TTL_S = 300.0
TOKEN_TTL_S = 60.0
AUDIT_EVERY_S = 0.05  # the most audits of reads that a crash may lose, as in Weir
MAX_CACHED = 100_000

V = TypeVar("V")


class TtlCache(Generic[V]):
    """A dict whose values age. Full, it forgets the oldest entry."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._values: dict[object, tuple[float, V]] = {}

    def get(self, key: object) -> V | None:
        held = self._values.get(key)
        return held[1] if held is not None and held[0] > time.monotonic() else None

    def put(self, key: object, value: V) -> None:
        if len(self._values) >= MAX_CACHED:
            del self._values[next(iter(self._values))]
        self._values[key] = (time.monotonic() + self._ttl_s, value)


class Limiter:
    """GCRA by key, in process: `quota` a minute sustained, `burst` at once."""

    def __init__(self, name: str, quota: int, burst: int) -> None:
        self.name, self.policy = name, f'"{name}";q={quota};w=60'
        self._interval, self._burst = 60 / quota, burst
        self._arrivals: dict[str, float] = {}

    def check(self, key: str) -> tuple[int, float]:
        """What is left at once (-1: refused), and the seconds until there is more."""
        now = time.monotonic()
        tat = max(self._arrivals.get(key, 0.0), now) + self._interval
        left = int(self._burst - (tat - now) / self._interval)
        if left < 0:
            return -1, tat - now - self._burst * self._interval
        if len(self._arrivals) >= MAX_CACHED:
            del self._arrivals[next(iter(self._arrivals))]
        self._arrivals[key] = tat
        return left, tat - now


class AuditTrail:
    """Audits of reads: appended to a list, committed by a task every 50 ms. No response waits for it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[Audit] = []

    def add(self, entry: Audit) -> None:
        self._waiting.append(entry)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(AUDIT_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        entries, self._waiting = self._waiting, []
        if entries:
            await run_in_threadpool(self._store.add_audits, entries)


class State:
    """What the lifespan makes and the dependencies use."""

    def __init__(self) -> None:
        self.store = Store(os.environ.get("PEER_DB", "peer.db"))
        quota, burst = int(os.environ.get("PEER_QUOTA", "600")), int(os.environ.get("PEER_BURST", "60"))
        self.caller, self.address = Limiter("caller", quota, burst), Limiter("address", quota * 5, burst * 5)
        self.users: TtlCache[User] = TtlCache(USER_TTL_S)
        self.grants: TtlCache[Grant] = TtlCache(TOKEN_TTL_S)
        self.trail = AuditTrail(self.store)
        # `background` is the form of FastAPI's tutorial: one insert, one commit, one thread hop a request.
        self.in_background = os.environ.get("PEER_AUDIT", "batched") == "background"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state.peer = State()
    flushing = asyncio.create_task(state.trail.run())
    try:
        yield
    finally:
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        await state.trail.flush()
        state.store.close()


app = FastAPI(lifespan=lifespan)
app.add_middleware(
    CORSMiddleware,
    allow_origins=os.environ.get("PEER_ORIGINS", "").split(),
    allow_methods=["GET", "POST"],
    allow_headers=["Authorization", "Content-Type"],
    expose_headers=["ETag", "RateLimit", "RateLimit-Policy", "X-Request-ID"],
)
bearer = HTTPBearer(auto_error=False)
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def peer(request: Request) -> State:
    state: State = request.app.state.peer
    return state


async def limited(request: Request, response: Response, credentials: Bearer) -> None:
    state = peer(request)
    address = request.client.host if request.client else ""
    token = credentials.credentials if credentials else address
    for limiter, key in ((state.caller, token), (state.address, address)):
        left, wait = limiter.check(key)
        if left < 0:
            refused = {"RateLimit-Policy": limiter.policy, "Retry-After": str(int(wait) + 1)}
            raise HTTPException(429, "Too many requests", headers=refused)
        if limiter is state.caller:
            response.headers["RateLimit"] = f'"{limiter.name}";r={left};t={int(wait) + 1}'
    response.headers["RateLimit-Policy"] = f"{state.caller.policy}, {state.address.policy}"


async def authenticated(request: Request, credentials: Bearer, _: Annotated[None, Depends(limited)]) -> Grant:
    if credentials is None:
        raise HTTPException(401, "Not authenticated", headers={"WWW-Authenticate": "Bearer"})
    state = peer(request)
    digest = hashlib.sha256(credentials.credentials.encode()).digest()
    grant = state.grants.get(digest)
    if grant is None:
        grant = await run_in_threadpool(state.store.grant, digest)
        if grant is not None:
            state.grants.put(digest, grant)
    if grant is None or grant.expires_at < time.time():
        raise HTTPException(401, "Unknown token", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
    return grant


Caller = Annotated[Grant, Depends(authenticated)]


def require(grant: Grant, scope: str) -> None:
    if scope not in grant.scopes:
        raise HTTPException(403, f"Needs {scope}")


def entry(grant: Grant, action: str, id: str, response: Response, outcome: str = "ok") -> Audit:
    request_id = response.headers["X-Request-ID"] = str(uuid.uuid4())
    return Audit(str(uuid.uuid4()), time.time(), grant.subject, action, f"user/{id}", outcome, request_id)


@app.get("/users/{id}")
async def read_user(id: str, request: Request, response: Response, grant: Caller, after: BackgroundTasks) -> User:
    require(grant, "users:read")
    state = peer(request)
    user = state.users.get(id)
    if user is None:
        user = await run_in_threadpool(state.store.user, id)
        if user is not None:
            state.users.put(id, user)
    read = entry(grant, "user.read", id, response, "ok" if user else "failed")
    if state.in_background:
        after.add_task(state.store.add_audits, [read])
    else:
        state.trail.add(read)
    if user is None:
        raise HTTPException(404, "No such user")
    response.headers["ETag"] = f'"{user.version}"'
    return user


@app.post("/users", status_code=201)
async def create_user(new: NewUser, request: Request, response: Response, grant: Caller) -> User:
    require(grant, "users:write")
    now = time.time()
    user = User(**new.model_dump(), id=str(uuid.uuid4()), version=1, created_at=now, updated_at=now)
    # Awaited to its end even when the client leaves: the thread commits either way.
    await run_in_threadpool(peer(request).store.add_user, user, entry(grant, "user.create", user.id, response))
    response.headers["ETag"] = '"1"'
    response.headers["Location"] = f"/users/{user.id}"
    return user


def issue(arguments: argparse.Namespace) -> str:
    """Store a new token's digest; the token itself is returned and kept nowhere."""
    token = secrets.token_urlsafe(32)
    store = Store(os.environ.get("PEER_DB", "peer.db"))
    grant = Grant(arguments.subject, frozenset(arguments.scope), time.time() + 86_400)
    store.add_grant(hashlib.sha256(token.encode()).digest(), grant)
    store.close()
    return token


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command = parser.add_subparsers(required=True).add_parser("token")
    command.add_argument("--subject", required=True)
    command.add_argument("--scope", action="append", default=[])
    print(issue(parser.parse_args()))
