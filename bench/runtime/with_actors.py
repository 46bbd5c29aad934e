"""Weir's runtime: every actor under a supervisor, with a bounded mailbox, as in the real tree."""

import gc
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from actors.runtime import Actor, Child, Event, Mailbox, Ref, Supervisor, System, open_system
from bench.runtime.crashes import crash_ready, crash_siblings
from bench.runtime.measure import ASKERS, CAPACITY, Meter, Times, main
from bench.runtime.overhead import overhead

STARTED = 2_000
KEPT = 10_000
PAGE = os.sysconf("SC_PAGE_SIZE")


class Single(Actor[int]):
    async def handle(self, message: int) -> int:
        return message


class Plain(Actor[int]):
    """Its handler waits for nothing, and says so by being a plain function."""

    def handle(self, message: int) -> int:
        return message


class Batch(Actor[int]):
    async def handle_batch(self, messages: list[int]) -> list[int]:
        return messages


class Counter(Actor[int]):
    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def handle(self, message: int) -> None:
        self._meter.count += 1


def unobserved(_event: Event) -> None:
    """What a log costs is the log's own affair."""


@asynccontextmanager
async def one(factory: Callable[[], Actor[Any]]) -> AsyncIterator[Ref[Any]]:
    tree = Supervisor("root", children=[Child("child", factory, mailbox=Mailbox(CAPACITY))])
    async with open_system(tree, observer=unobserved) as system:
        yield system.ref("child")


def ask(factory: Callable[[], Actor[int]], askers: int, times: Times) -> dict[str, float]:
    meter = Meter(times)

    async def asker(ref: Ref[int]) -> None:
        while meter.running():
            await ref.ask(1)
            meter.count += 1

    async def run() -> None:
        async with one(factory) as ref, trio.open_nursery() as nursery:
            for _ in range(askers):
                nursery.start_soon(asker, ref)

    trio.run(run)
    return {"figure": meter.rate()}


def tell(times: Times) -> dict[str, float]:
    meter = Meter(times)

    async def run() -> None:
        async with one(partial(Counter, meter)) as ref:
            while meter.running():
                await ref.tell(1)

    trio.run(run)
    return {"figure": meter.rate()}


def try_tell(times: Times) -> dict[str, float]:
    """Tell until the mailbox is full, let others run, go on."""
    meter = Meter(times)

    async def run() -> None:
        async with one(partial(Counter, meter)) as ref:
            while meter.running():
                while ref.try_tell(1):
                    pass
                await trio.lowlevel.checkpoint()

    trio.run(run)
    return {"figure": meter.rate()}


def idle(count: int) -> Supervisor:
    children = [Child(f"child {number}", Single, mailbox=Mailbox(CAPACITY)) for number in range(count)]
    return Supervisor("root", children=children)


async def opened(tree: Supervisor, look: Callable[[System], float]) -> float:
    """What *look* says of *tree* once it is ready."""
    async with open_system(tree, observer=unobserved) as system:
        return look(system)


def start_idle(_times: Times) -> dict[str, float]:
    """From the call of `open_system` to its body, a child: checks and the making of all cells included."""
    warm = partial(opened, idle(100), lambda _system: 0.0)
    trio.run(warm)

    async def run() -> float:
        tree = idle(STARTED)
        begun = time.perf_counter()
        return await opened(tree, lambda _system: time.perf_counter() - begun)

    return {"figure": trio.run(run) / STARTED * 1e6}


def memory_idle(_times: Times) -> dict[str, float]:
    """The growth of the resident set: all that a child costs the machine, tasks and stacks included."""

    async def run() -> float:
        await opened(idle(100), lambda _system: 0.0)
        gc.collect()
        before = resident()
        after = await opened(idle(KEPT), lambda _system: resident())
        return after - before

    return {"figure": trio.run(run) / KEPT / 1024}


def resident() -> float:
    """Bytes of this process that are in memory."""
    gc.collect()
    return float(Path("/proc/self/statm").read_text().split()[1]) * PAGE


if __name__ == "__main__":
    main(
        {
            "ask-64": partial(ask, Plain, ASKERS),
            "ask-1": partial(ask, Plain, 1),
            "ask-64-async": partial(ask, Single, ASKERS),
            "ask-1-async": partial(ask, Single, 1),
            "ask-64-batch": partial(ask, Batch, ASKERS),
            "tell": tell,
            "try-tell": try_tell,
            "start-idle": start_idle,
            "memory-idle": memory_idle,
            "crash-ready": crash_ready,
            "crash-siblings": crash_siblings,
            "measured-64": partial(overhead, Plain),
            "measured-64-async": partial(overhead, Single),
            "measured-64-batch": partial(overhead, Batch),
        }
    )
