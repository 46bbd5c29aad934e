"""What aiokafka does not offer itself: to let go of a client that does not stop, and to see behind a consumer.

The only module that reaches for its private names.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, KafkaTimeoutError
from aiokafka.structs import OffsetAndMetadata

T = TypeVar("T")

_RETRY_S = 0.1


@contextmanager
def quiet() -> Iterator[None]:
    """Without aiokafka's own log lines: while a broker is away it writes ten a second, and what matters comes as an
    exception."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def mend_producer(producer: AIOKafkaProducer) -> None:
    """A sender that fails ends in an AttributeError unless there is this future, which only transactions make."""
    waiter = asyncio.get_running_loop().create_future()
    waiter.add_done_callback(lambda future: future.cancelled() or future.exception())
    producer._txn_manager._transaction_waiter = waiter


async def stop_producer(producer: AIOKafkaProducer, patience: float) -> None:
    """Stop within *patience* seconds, then without what was not confirmed.

    `stop` alone waits for ever while a broker is away: a batch of an idempotent producer never expires.
    """
    await _within(patience, producer.stop())
    # Its connections first: the requests under way end with them, and the sender waits for those.
    _sever(producer.client)
    await _end(producer._sender.sender_task)
    accumulator = producer._message_accumulator
    batches = [*accumulator._pending_batches, *(batch for queue in accumulator._batches.values() for batch in queue)]
    accumulator.fail_all(KafkaTimeoutError())
    for batch in batches:
        _look_at(batch._drain_waiter)  # nobody else does


async def stop_consumer(consumer: AIOKafkaConsumer, patience: float) -> None:
    """Stop within *patience* seconds, then without leaving the group."""
    await _within(patience, consumer.stop())
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    for task in (
        *(getattr(coordinator, name, None) for name in _COORDINATOR_TASKS),
        getattr(fetcher, "_fetch_task", None),
    ):
        await _end(task)
    _sever(consumer._client)


_COORDINATOR_TASKS = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")


async def stop_admin(admin: AIOKafkaAdminClient, patience: float) -> None:
    await _within(patience, admin.close())
    _sever(admin._client)


def generation(consumer: AIOKafkaConsumer) -> int:
    """Of its group; below 0 when the broker does not count this consumer as a member any more."""
    found: int = consumer._coordinator.generation
    return found


def ended(consumer: AIOKafkaConsumer) -> bool:
    """Whether the task that keeps it in its group is gone, which no call brings back."""
    return bool(consumer._coordinator._coordination_task.done())


async def committed(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]
) -> Mapping[TopicPartition, OffsetAndMetadata]:
    """With metadata, which `AIOKafkaConsumer.committed` leaves out. Retries for ever what is retriable."""
    found: Mapping[TopicPartition, OffsetAndMetadata] = await consumer._coordinator.fetch_committed_offsets(
        list(partitions)
    )
    return found


async def retrying(operation: Callable[[], Awaitable[T]]) -> T:
    """Until *operation* ends otherwise than with a retriable error; the caller has the deadline."""
    while True:
        try:
            return await operation()
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(_RETRY_S)


async def _within(patience: float, stopping: Awaitable[None]) -> None:
    task = asyncio.ensure_future(stopping)
    await asyncio.wait([task], timeout=patience)
    await _end(task)


async def _end(task: "asyncio.Task[Any] | None") -> None:
    """Cancel *task* and look at how it ended, so that asyncio does not complain of it later."""
    if task is None:
        return
    task.cancel()
    await asyncio.wait([task], timeout=1.0)
    _look_at(task)


def _look_at(future: "asyncio.Future[Any]") -> None:
    if future.done() and not future.cancelled():
        future.exception()


def _sever(client: Any) -> None:
    """Abort what is left of a client's connections: closing one waits for a peer that may be gone."""
    if client._sync_task is not None:
        client._sync_task.cancel()
    for connection in list(client._conns.values()):
        writer = connection._writer
        connection.close()
        if writer is not None:
            writer.transport.abort()
