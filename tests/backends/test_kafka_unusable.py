"""Bad input: what is wrong with Kafka is one line that names the setting, and known apart from what waiting cures."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from backends.asyncio_bridge import asyncio_loop, crossing
from backends.kafka.connection import Connection, check_version, probe
from backends.kafka.engine import Kafka, open_kafka
from backends.kafka.errors import UnusableKafka
from backends.kafka.member import Member
from backends.ports.entities import StoreUnavailable
from backends.ports.event_log import Topic
from backends.ports.events import NewRecord
from tests.backends.kafka_groups import Consumer
from tests.backends.kafka_log import MemoryLedger
from tests.engines import free_port
from tests.engines.kafka import USERS, Broker

# A start of aiokafka's that is cancelled leaves its first connection to the collector, which warns of it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@asynccontextmanager
async def opened(connection: Connection) -> AsyncIterator[Kafka]:
    async with asyncio_loop(), open_kafka(connection, MemoryLedger()) as kafka:
        yield kafka


async def probed(connection: Connection) -> None:
    async with asyncio_loop():
        await crossing(probe, connection)


def sasl(broker: Broker, user: str, password: str | None = None, **options: str) -> Connection:
    return Connection(
        bootstrap=broker.sasl_bootstrap,
        security_protocol="SASL_PLAINTEXT",
        username=user,
        password=USERS[user] if password is None else password,
        request_timeout=2.0,
        **options,  # type: ignore[arg-type]
    )


async def refusal(connection: Connection) -> str:
    with pytest.raises(UnusableKafka) as raised:
        async with opened(connection):
            pass
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Waiting can cure it.


async def test_nobody_listens() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with opened(Connection(bootstrap=f"{address},localhost:1")) as kafka:
        (problem,) = kafka.health().problems
        assert not kafka.health().reached
        assert problem.startswith(f"kafka.bootstrap = {address},localhost:1: no broker answers ({address}: ")
        assert "localhost:1: " in problem
        with pytest.raises(StoreUnavailable):
            await kafka.event_log.append([NewRecord("t", b"k", b"v")], durable=True)


async def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(StoreUnavailable, match=r"kafka.bootstrap = nowhere.invalid:9092: no broker answers"):
        await probed(Connection(bootstrap="nowhere.invalid:9092", request_timeout=2.0))


async def test_something_that_is_not_kafka() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(StoreUnavailable, match=r"a Kafka listener\? the right kafka.security_protocol\?"):
            await probed(Connection(bootstrap=address, request_timeout=0.5))


@pytest.mark.engines
async def test_a_broker_that_comes_later_is_found(faulty_kafka: Broker) -> None:
    faulty_kafka.kill()
    async with opened(Connection(bootstrap=faulty_kafka.bootstrap, request_timeout=1.0)) as kafka:
        assert kafka.health().problems
        await trio.to_thread.run_sync(faulty_kafka.start)
        with trio.fail_after(20):
            while kafka.health().problems:  # noqa: ASYNC110 - nobody tells when
                await trio.sleep(0.1)
        assert kafka.health().reached


# Waiting cannot.


@pytest.mark.engines
async def test_a_wrong_password(kafka_broker: Broker) -> None:
    line = await refusal(sasl(kafka_broker, "admin", "wrong"))
    assert "refused the login" in line
    assert "check kafka.username, kafka.password and kafka.sasl_mechanism" in line
    assert "wrong" not in line


@pytest.mark.engines
async def test_a_mechanism_that_is_not_enabled(kafka_broker: Broker) -> None:
    line = await refusal(sasl(kafka_broker, "admin", sasl_mechanism="SCRAM-SHA-512"))
    assert "kafka.sasl_mechanism" in line


@pytest.mark.engines
async def test_tls_to_a_listener_without(kafka_broker: Broker) -> None:
    connection = Connection(bootstrap=kafka_broker.bootstrap, security_protocol="SSL", request_timeout=2.0)
    with pytest.raises((UnusableKafka, StoreUnavailable), match=r"kafka.security_protocol"):
        await probed(connection)


async def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    for file in ("ca.pem", "absent.pem"):
        connection = Connection(bootstrap="127.0.0.1:1", security_protocol="SSL", tls_ca=tmp_path / file)
        assert (await refusal(connection)).startswith(f"kafka.tls_ca = {tmp_path / file}: ")


def test_a_broker_that_is_too_old() -> None:
    check_version({19: (0, 4)}, "a:1")
    for offered in ({}, {19: (0, 3)}):
        with pytest.raises(UnusableKafka, match=r"a:1 is too old; Weir needs Kafka 2.4"):
            check_version(offered, "a:1")


@pytest.mark.engines
async def test_the_right_password(kafka_broker: Broker) -> None:
    async with opened(sasl(kafka_broker, "admin")) as kafka:
        assert kafka.health() == (True, ())
        await kafka.event_log.ensure_topics([Topic("by-admin", 1, None)])
        assert await kafka.event_log.append([NewRecord("by-admin", b"k", b"v")], durable=True) == [(0, 0)]


@pytest.mark.engines
async def test_no_right_to_create_a_topic(kafka_broker: Broker) -> None:
    forbidden = [Topic("forbidden", 1, None)]
    async with opened(sasl(kafka_broker, "nobody")) as kafka:
        with pytest.raises(UnusableKafka, match=r"no right to create forbidden; grant kafka.username"):
            await kafka.event_log.ensure_topics(forbidden)
    with pytest.raises(UnusableKafka, match=r"no right to create forbidden; grant kafka.username"):
        async with asyncio_loop(), open_kafka(sasl(kafka_broker, "nobody"), MemoryLedger(), forbidden):
            pass


@pytest.mark.engines
async def test_no_right_to_join_a_group(kafka_broker: Broker) -> None:
    async with opened(sasl(kafka_broker, "admin")) as kafka:
        await kafka.event_log.ensure_topics([Topic("guarded", 1, None)])

    async def nothing(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    member = Member(sasl(kafka_broker, "nobody"), "strangers", ["guarded"], prepare=nothing, committed=nothing)
    async with asyncio_loop():
        try:
            with trio.fail_after(20), pytest.raises(UnusableKafka, match=r"no right to .* strangers"):
                await polled_for_ever(member)
        finally:
            await member.leave()


async def polled_for_ever(member: Member) -> None:
    consumer = Consumer(member)
    await member.join(consumer)
    while True:
        await consumer.poll()
