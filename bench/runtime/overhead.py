"""What metrics and traces cost: the same asks with both and with neither, in turns, in one process."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import trio

from actors.runtime import Actor, Child, Mailbox, Ref, Supervisor, Trace, open_system, use_trace
from bench.runtime.measure import ASKERS, CAPACITY, Times

PHASE_S = 0.05


async def phase(ref: Ref[int], seconds: float, traced: bool) -> float:
    """Processor seconds of an ask, from 64 tasks, each in a trace of its own if *traced*."""
    count = 0
    end = time.perf_counter() + seconds

    async def asker() -> None:
        nonlocal count
        with use_trace(Trace.new() if traced else None):
            while time.perf_counter() < end:
                await ref.ask(1)
                count += 1

    begun = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(ASKERS):
            nursery.start_soon(asker)
    return (time.process_time() - begun) / count


async def alternate(factory: Callable[[], Actor[int]], times: Times) -> list[tuple[float, float]]:
    """Pairs of neighbouring phases: the cost of an ask without, and with, metrics and traces."""

    def tree() -> Supervisor:
        return Supervisor("root", children=[Child("child", factory, mailbox=Mailbox(CAPACITY))])

    async with (
        open_system(tree(), observer=lambda _event: None) as plain,
        open_system(tree(), observer=lambda _event: None, metrics=True) as measured,
    ):
        without = partial(phase, plain.ref("child"), PHASE_S, False)
        with_both = partial(phase, measured.ref("child"), PHASE_S, True)
        pairs: list[tuple[float, float]] = []
        until = time.perf_counter() + times.warmup
        while time.perf_counter() < until:
            await without()
            await with_both()
        until = time.perf_counter() + 2 * times.seconds
        while time.perf_counter() < until or not pairs:
            pairs.append((await without(), await with_both()))
            later = await with_both()
            pairs.append((await without(), later))
        return pairs


def overhead(factory: Callable[[], Actor[int]], times: Times) -> dict[str, float]:
    """The median of the pairs. Twice as long as the other rows: a few percent need it."""
    pairs = trio.run(alternate, factory, times)
    return {
        "figure": (median(on / off for off, on in pairs) - 1) * 100,
        "off_us": median(off for off, _on in pairs) * 1e6,
        "on_us": median(on for _off, on in pairs) * 1e6,
    }
