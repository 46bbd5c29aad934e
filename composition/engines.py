"""Which engines the settings name, and their life: above the tree, so that a crash of an actor closes no connection.

The clients of the real engines are imported where they are configured: an embedded start needs none of them.
"""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from backends.embedded.database import Database
from backends.embedded.engine import Engine as EmbeddedEngine
from backends.embedded.lock import data_directory_lock
from backends.ports.engine import Engine
from backends.spool.spool import Spool
from composition import values
from gateway.ids import new_id
from settings import Settings

if TYPE_CHECKING:
    from backends.redis.engine import RedisEngine


@contextmanager
def made_engine(settings: Settings) -> Iterator[Engine]:
    """The data directory under its lock (the operator's token, the control socket and spools are there whatever the
    engine), and the engine that the settings name. No connection is opened yet."""
    with data_directory_lock(settings.data.dir), engine_in(settings, settings.data.dir) as engine:
        yield engine


@contextmanager
def engine_to_look_at(settings: Settings) -> Iterator[Engine]:
    """As `made_engine`, but nothing of it is ever opened or kept: the tree can be declared with it."""
    with tempfile.TemporaryDirectory() as folder, engine_in(settings, Path(folder)) as engine:
        yield engine


@contextmanager
def engine_in(settings: Settings, folder: Path) -> Iterator[Engine]:
    with ExitStack() as stack:
        if settings.postgres.dsn:
            yield _remote(settings)
        else:
            yield EmbeddedEngine(stack.enter_context(Database.open(folder / "weir.db")))


@contextmanager
def made_spool(settings: Settings) -> Iterator[Spool | None]:
    """Where events wait while the bus is away; None where the log is in the database. Raises OSError."""
    if not settings.kafka.bootstrap:
        yield None
        return
    spool = Spool(settings.data.dir / "spool", settings.audit.spool)
    try:
        yield spool
    finally:
        spool.close()


@asynccontextmanager
async def opened_engines(engine: Engine, redis: "RedisEngine | None" = None) -> AsyncIterator[None]:
    """asyncio's loop is there only where an engine needs it. Raises `EngineUnusable`."""
    async with AsyncExitStack() as stack:
        if redis is not None or engine.needs_asyncio:
            from backends.asyncio_bridge import asyncio_loop

            await stack.enter_async_context(asyncio_loop())
        if redis is not None:
            await stack.enter_async_context(redis.opened())
        await stack.enter_async_context(engine.opened())
        yield


def _remote(settings: Settings) -> Engine:
    """PostgreSQL for what is stored, Kafka for what is published."""
    from backends.kafka.connection import Connection
    from backends.kafka.engine import Kafka
    from backends.postgres.ledger import ConsumerLedger
    from backends.postgres.pool import Pool
    from composition.remote import RemoteEngine

    postgres, kafka = settings.postgres, settings.kafka
    pool = Pool(postgres.dsn, size=postgres.pool_size, budget=postgres.timeout)
    connection = Connection(
        bootstrap=kafka.bootstrap,
        instance_id=kafka.instance_id,
        security_protocol=kafka.security_protocol,
        sasl_mechanism=kafka.sasl_mechanism,
        username=kafka.username,
        password=kafka.password,
        tls_ca=kafka.tls_ca,
    )
    return RemoteEngine(pool, Kafka(connection, ConsumerLedger(pool)), values.topics(settings), owner=new_id())
