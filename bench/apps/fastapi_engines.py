"""The peer on real engines: the flow as an experienced FastAPI user writes it on Redis, PostgreSQL and Kafka.

Rate limit (one Lua script for token and address) → Bearer token (cached in Redis for a minute) → user profile, Redis
before PostgreSQL → CORS and RateLimit headers → audit record to Kafka. A write commits the user and its events (outbox)
in one transaction; a task relays them. bench/README.md lists the choices.

    uvicorn bench.apps.fastapi_engines:app --loop uvloop --http httptools --no-access-log
"""

import asyncio
import hashlib
import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
from aiokafka import AIOKafkaProducer
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis.asyncio import Redis

from bench.apps.fastapi_engines_store import SCHEMA, Limiter, Policy, Relay, Tokens, Users
from bench.apps.fastapi_store import Grant, NewUser, User

LINGER_MS = 20
RELAY_EVERY_S = 0.02


class State:
    """What the lifespan makes and the dependencies use."""

    def __init__(self, redis: "Redis", pool: asyncpg.Pool, producer: AIOKafkaProducer) -> None:
        quota, burst = int(os.environ.get("PEER_QUOTA", "600")), int(os.environ.get("PEER_BURST", "60"))
        self.limiter = Limiter(redis, [Policy("caller", quota, burst), Policy("address", quota * 5, burst * 5)])
        self.tokens, self.users = Tokens(redis, pool), Users(redis, pool)
        self.relay, self.producer = Relay(pool, producer), producer

    async def relay_forever(self) -> None:
        while True:
            if not await self.relay.step():
                await asyncio.sleep(RELAY_EVERY_S)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["PEER_KAFKA"], acks="all", enable_idempotence=True, linger_ms=LINGER_MS
    )
    async with (
        Redis.from_url(os.environ["PEER_REDIS"], decode_responses=True) as redis,
        asyncpg.create_pool(os.environ["PEER_POSTGRES"]) as pool,
        producer,
    ):
        await pool.execute(SCHEMA)
        state = app.state.peer = State(redis, pool, producer)
        relaying = asyncio.create_task(state.relay_forever())
        try:
            yield
        finally:
            relaying.cancel()
            await asyncio.gather(relaying, return_exceptions=True)


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


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def limited(request: Request, response: Response, credentials: Bearer) -> None:
    limiter = peer(request).limiter
    address = request.client.host if request.client else ""
    refused, left, wait = await limiter.check(digest(credentials.credentials) if credentials else address, address)
    policies = ", ".join(policy.header for policy in limiter.policies)
    if refused:
        headers = {"RateLimit-Policy": policies, "Retry-After": str(int(wait) + 1)}
        raise HTTPException(429, "Too many requests", headers=headers)
    response.headers["RateLimit"] = f'"{limiter.policies[0].name}";r={left};t={int(wait) + 1}'
    response.headers["RateLimit-Policy"] = policies


async def authenticated(request: Request, credentials: Bearer, _: Annotated[None, Depends(limited)]) -> Grant:
    if credentials is None:
        raise HTTPException(401, "Not authenticated", headers={"WWW-Authenticate": "Bearer"})
    grant = await peer(request).tokens.find(digest(credentials.credentials))
    if grant is None or grant.expires_at < time.time():
        raise HTTPException(401, "Unknown token", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
    return grant


Caller = Annotated[Grant, Depends(authenticated)]


def require(grant: Grant, scope: str) -> None:
    if scope not in grant.scopes:
        raise HTTPException(403, f"Needs {scope}")


def audit(grant: Grant, action: str, id: str, response: Response, outcome: str = "ok") -> tuple[str, str, str]:
    """Topic, key and value of the record."""
    request_id = response.headers["X-Request-ID"] = str(uuid.uuid4())
    entity = f"user/{id}"
    record = {
        "id": str(uuid.uuid4()),
        "at": time.time(),
        "subject": grant.subject,
        "action": action,
        "entity": entity,
        "outcome": outcome,
        "request_id": request_id,
    }
    return "audit", entity, json.dumps(record)


@app.get("/users/{id}")
async def read_user(id: str, request: Request, response: Response, grant: Caller) -> User:
    require(grant, "users:read")
    state = peer(request)
    user = await state.users.find(id)
    topic, key, value = audit(grant, "user.read", id, response, "ok" if user else "failed")
    await state.producer.send(topic, value.encode(), key=key.encode())  # into its batch; nobody waits for the brokers
    if user is None:
        raise HTTPException(404, "No such user")
    response.headers["ETag"] = f'"{user.version}"'
    return user


@app.post("/users", status_code=201)
async def create_user(new: NewUser, request: Request, response: Response, grant: Caller) -> User:
    require(grant, "users:write")
    now = time.time()
    user = User(**new.model_dump(), id=str(uuid.uuid4()), version=1, created_at=now, updated_at=now)
    change = {"type": "user.created", "id": user.id, "version": 1, "entity": user.model_dump()}
    events = [
        ("entity.changed", f"user/{user.id}", json.dumps(change)),
        audit(grant, "user.create", user.id, response),
    ]
    await peer(request).users.add(user, events)
    response.headers["ETag"] = '"1"'
    response.headers["Location"] = f"/users/{user.id}"
    return user
