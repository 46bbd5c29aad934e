"""Fifty endpoints over real connections, four fifths of them ill: who is well gets everything, in order, meanwhile."""

import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

import msgspec
import pytest
import trio

from actors.consumers.notification.deliveries import Deliveries
from actors.consumers.notification.endpoint import EndpointDeliveries
from actors.consumers.notification.messages import Backlog
from actors.consumers.notification.outbox import OutboxSender
from actors.consumers.notification.senders import Senders, Slots
from actors.consumers.retry import RetryPolicy
from actors.metrics import Metrics
from actors.runtime import DynamicSupervisor, Mailbox, System
from backends.ports.entities import Entity
from backends.ports.stores import Delivery
from tests.consumers.fakes import FakeStorage, MemoryDeliveries, MemoryLog, count, running
from tests.consumers.receivers import SECRET, sender

pytestmark = pytest.mark.process

KINDS = ("well", "hang", "drip", "reset", "error")
EACH = 10
ROWS = 12
POLICY = RetryPolicy(attempts=2, base=0.05, cap=0.1)


class Receivers:
    """One listener for all of them: the path says which one is called, and its first part how it behaves."""

    def __init__(self) -> None:
        self.got: dict[str, list[str]] = {}
        self.calls: Counter[str] = Counter()
        self.recovered = False

    async def serve(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some(4096)
        lines = head.decode().split("\r\n")
        name = lines[0].split(" ")[1].strip("/")
        id = next(line.partition(": ")[2] for line in lines if line.startswith("webhook-id"))
        kind = "well" if self.recovered else name.partition("-")[0]
        self.calls[kind] += 1
        try:
            await self.answer(kind, stream)
        except trio.BrokenResourceError:
            return  # the caller's patience is over
        if kind == "well":
            self.got.setdefault(name, []).append(id)

    async def answer(self, kind: str, stream: trio.SocketStream) -> None:
        match kind:
            case "well":
                await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            case "error":
                await stream.send_all(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
            case "reset":
                stream.socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            case "hang":
                await trio.sleep_forever()
            case "drip":
                for byte in b"HTTP/1.1 204 " + b"x" * 100_000:
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(0.02)
        await trio.aclose_forcefully(stream)


def row(name: str, number: int) -> Delivery:
    return Delivery(
        id=f"{name}_{number:02}",
        channel="webhook",
        endpoint=name,
        event_id="e",
        event_type="user.created",
        source="entity.changed/0/0",
        payload=b"{}",
        due_at=float(number),
    )


class World:
    """Receivers, the rows for them, and the actors that work these off."""

    def __init__(self, port: int) -> None:
        self.store, self.metrics, self.log = MemoryDeliveries(), Metrics(), MemoryLog()
        self.names = [f"{kind}-{number}" for kind in KINDS for number in range(EACH)]
        rows = [row(name, number) for name in self.names for number in range(ROWS)]
        self.store.rows = {row.id: row for row in rows}
        self.hooks = [hook(name, port) for name in self.names]

    @asynccontextmanager
    async def delivering(self, timeout: float) -> AsyncIterator[System]:
        async with sender(timeout=timeout) as webhooks:
            senders = Senders(webhooks, OutboxSender(Path("never")))
            slots = Slots()
            endpoint = partial(EndpointDeliveries, self.store, senders, slots, metrics=self.metrics, policy=POLICY)
            children = {
                "storage_reader": partial(FakeStorage, self.hooks),
                "endpoints": DynamicSupervisor(
                    "endpoints", endpoint, mailbox=Mailbox(16), max_children=100, intensity=None
                ),
                "deliveries": partial(Deliveries, self.store, policy=POLICY),
            }
            async with running(self.log, **children) as system:
                yield system

    def states(self, *kinds: str) -> set[str]:
        return {row.state for row in self.store.rows.values() if row.endpoint.startswith(kinds)}


def hook(name: str, port: int) -> Entity:
    document = {"url": f"http://127.0.0.1:{port}/{name}", "events": ["*"], "secret": SECRET}
    return Entity("webhook", name, 1, 0.0, 0.0, msgspec.json.encode(document))


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - the memory stores tell nobody
            await trio.sleep(0.02)


async def test_four_ill_endpoints_in_five_hold_up_none_of_the_others(nursery: trio.Nursery) -> None:
    receivers = Receivers()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=256)
    nursery.start_soon(trio.serve_listeners, receivers.serve, [listener])
    at = World(listener.socket.getsockname()[1])
    all_of_them = [f"_{number:02}" for number in range(ROWS)]

    # A patience that does not end within the test: what hangs is in hand from the first second to the last.
    async with at.delivering(timeout=120.0) as system:
        await until(lambda: at.states("well", "reset", "error") == {"done", "dead"})
        await until(lambda: len(at.log.read("entity.changed.notification.dlt")) == 2 * EACH * ROWS)
        waiting = await system.ref("deliveries").ask(Backlog())
    assert waiting.endpoints["working"] == 2 * EACH, "those that hang and those that drip"
    assert waiting.deliveries == 2 * EACH * ROWS
    for name in at.names[:EACH]:
        assert receivers.got[name] == [name + number for number in all_of_them], "each once, in order"
    assert receivers.calls["hang"] == receivers.calls["drip"] == EACH, "one call at a time for each"
    assert count(at.metrics, "weir_deliveries_total", "webhook", "sent") == EACH * ROWS
    assert count(at.metrics, "weir_deliveries_total", "webhook", "failed") == 2 * EACH * ROWS * POLICY.attempts
    assert (at.states("well"), at.states("reset", "error")) == ({"done"}, {"dead"})

    receivers.recovered = True
    async with at.delivering(timeout=5.0):
        await until(lambda: at.states("hang", "drip") == {"done"})
    for name in at.names[EACH : 3 * EACH]:
        assert receivers.got[name] == [name + number for number in all_of_them], "what was in hand comes again"
