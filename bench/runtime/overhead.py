"""What metrics and traces cost: the same asks with both and with neither, in turns, in one process."""

import itertools
import time
from collections.abc import Callable

import trio

from actors.runtime import Actor, Child, Mailbox, Ref, Supervisor, Trace, open_system, use_trace
from bench.runtime.measure import ASKERS, CAPACITY, Times

PHASE_S = 0.05


async def phase(ref: Ref[int], seconds: float, traced: bool) -> tuple[int, float]:
    """Asks from 64 tasks, each in a trace of its own if *traced*: how many, and the processor time they took."""
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
    return count, time.process_time() - begun


async def alternate(factory: Callable[[], Actor[int]], times: Times) -> dict[bool, float]:
    """Seconds an ask, by whether metrics and traces are on."""

    def tree() -> Supervisor:
        return Supervisor("root", children=[Child("child", factory, mailbox=Mailbox(CAPACITY))])

    asks, seconds = {True: 0, False: 0}, {True: 0.0, False: 0.0}
    async with (
        open_system(tree(), observer=lambda _event: None) as plain,
        open_system(tree(), observer=lambda _event: None, metrics=True) as measured,
    ):
        refs = {False: plain.ref("child"), True: measured.ref("child")}
        for on in (True, False):
            await phase(refs[on], times.warmup / 2, on)
        until = time.perf_counter() + 2 * times.seconds
        for on in itertools.cycle((False, True, True, False)):
            if time.perf_counter() >= until:
                break
            counted, took = await phase(refs[on], PHASE_S, on)
            asks[on] += counted
            seconds[on] += took
    return {on: seconds[on] / asks[on] for on in asks}


def overhead(factory: Callable[[], Actor[int]], times: Times) -> dict[str, float]:
    """Twice as long as the other rows: a few percent need it."""
    an_ask = trio.run(alternate, factory, times)
    return {
        "figure": (an_ask[True] / an_ask[False] - 1) * 100,
        "off_us": an_ask[False] * 1e6,
        "on_us": an_ask[True] * 1e6,
    }
