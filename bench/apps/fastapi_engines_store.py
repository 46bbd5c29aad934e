"""The stores of the FastAPI peer on real engines: PostgreSQL by asyncpg, Redis by redis.asyncio, Kafka by aiokafka."""

import json
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from asyncpg import Pool
from redis.asyncio import Redis

from bench.apps.fastapi_store import Grant, User

USER_TTL_S = 300
TOKEN_TTL_S = 60
RELAYED = 500

SCHEMA = """
CREATE TABLE IF NOT EXISTS token (digest text PRIMARY KEY, subject text NOT NULL, scopes text[] NOT NULL,
    expires_at double precision NOT NULL);
CREATE TABLE IF NOT EXISTS app_user (id text PRIMARY KEY, name text NOT NULL, email text NOT NULL, bio text NOT NULL,
    version integer NOT NULL, created_at double precision NOT NULL, updated_at double precision NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL,
    key text NOT NULL, value text NOT NULL);
"""

# GCRA on Redis's clock, in µs: all limits of a request in one call. Returns {which refused or 0, left, wait in µs}.
LIMIT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local left, wait = nil, 0
for i, key in ipairs(KEYS) do
    local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local tat = math.max(tonumber(redis.call('GET', key) or 0), now) + interval
    local room = math.floor(burst - (tat - now) / interval)
    if room < 0 then
        return {i, 0, tat - now - burst * interval}
    end
    redis.call('SET', key, string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000) + 1)
    if left == nil then
        left, wait = room, tat - now
    end
end
return {0, left, wait}
"""


@dataclass(frozen=True)
class Policy:
    """`quota` a minute sustained, `burst` at once."""

    name: str
    quota: int
    burst: int

    @property
    def header(self) -> str:
        return f'"{self.name}";q={self.quota};w=60'

    @property
    def interval_us(self) -> float:
        return 60e6 / self.quota


class Limiter:
    """All limits of a request in one script."""

    def __init__(self, redis: Redis, policies: list[Policy]) -> None:
        self.policies = policies
        self._script = redis.register_script(LIMIT)
        self._args = [value for policy in policies for value in (policy.interval_us, policy.burst)]

    async def check(self, *keys: str) -> tuple[int, int, float]:
        """Which policy refused (from 1; 0: none), what is left of the first, and the seconds until there is more."""
        named = [f"limit:{policy.name}:{key}" for policy, key in zip(self.policies, keys, strict=True)]
        refused, left, wait = await self._script(named, self._args)
        return refused, left, wait / 1e6


class Tokens:
    """Cache-aside: Redis for a minute, then PostgreSQL."""

    def __init__(self, redis: Redis, pool: Pool) -> None:
        self._redis, self._pool = redis, pool

    async def find(self, digest: str) -> Grant | None:
        key = f"token:{digest}"
        cached = await self._redis.get(key)
        if cached is not None:
            subject, scopes, expires_at = json.loads(cached)
            return Grant(subject, frozenset(scopes), expires_at)
        row = await self._pool.fetchrow("SELECT subject, scopes, expires_at FROM token WHERE digest = $1", digest)
        if row is None:
            return None
        await self._redis.set(key, json.dumps(list(row)), ex=TOKEN_TTL_S)
        return Grant(row["subject"], frozenset(row["scopes"]), row["expires_at"])


class Users:
    """Cache-aside: Redis for five minutes, then PostgreSQL. A write commits the user and its events together."""

    def __init__(self, redis: Redis, pool: Pool) -> None:
        self._redis, self._pool = redis, pool

    async def find(self, id: str) -> User | None:
        key = f"user:{id}"
        cached = await self._redis.get(key)
        if cached is not None:
            return User.model_validate_json(cached)
        row = await self._pool.fetchrow("SELECT * FROM app_user WHERE id = $1", id)
        if row is None:
            return None
        user = User(**row)
        await self._redis.set(key, user.model_dump_json(), ex=USER_TTL_S)
        return user

    async def add(self, user: User, events: list[tuple[str, str, str]]) -> None:
        """*events*: topic, key and value of each."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO app_user VALUES ($1, $2, $3, $4, $5, $6, $7)",
                user.id, user.name, user.email, user.bio, user.version, user.created_at, user.updated_at,
            )  # fmt: skip
            await connection.executemany("INSERT INTO outbox (topic, key, value) VALUES ($1, $2, $3)", events)
        await self._redis.delete(f"user:{user.id}")


class Relay:
    """The outbox on its way to Kafka: rows are gone once the brokers have confirmed them."""

    def __init__(self, pool: Pool, producer: AIOKafkaProducer) -> None:
        self._pool, self._producer = pool, producer

    async def step(self) -> int:
        """Relay up to `RELAYED` rows; how many."""
        async with self._pool.acquire() as connection, connection.transaction():
            rows: list[Any] = await connection.fetch(
                "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) "
                "RETURNING id, topic, key, value",
                RELAYED,
            )
            rows.sort(key=lambda row: row["id"])
            sent = [
                await self._producer.send(row["topic"], row["value"].encode(), key=row["key"].encode()) for row in rows
            ]
            for confirmed in sent:
                await confirmed
        return len(rows)
