"""What a crash costs: the actor itself until it is ready again, and its siblings under load meanwhile."""

import itertools
import time
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import trio

from actors.runtime import Actor, ActorCrashed, Backoff, Child, Mailbox, Supervisor, System, open_system
from bench.runtime.measure import Times

SIBLINGS = 4
ASKERS_EACH = 2
OFTEN_S, SELDOM_S = 0.02, 0.1  # between two crashes: to time many; to see what siblings feel of them
PHASE_S = 0.2  # with crashes, without, with, without


@dataclass
class Seen:
    """`downs`: seconds from a raise to ready; `quiet`, `crashing`: latencies of the siblings, in seconds."""

    downs: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)
    crashing: list[float] = field(default_factory=list)
    raised_at: float | None = None
    into: list[float] | None = None
    ended: bool = False


class Victim(Actor[bool]):
    """Crashes when told True."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def on_start(self) -> None:
        if self._seen.raised_at is not None:
            self._seen.downs.append(time.perf_counter() - self._seen.raised_at)

    async def handle(self, message: bool) -> None:
        if message:
            self._seen.raised_at = time.perf_counter()
            raise RuntimeError("the bench's crash")


class Sibling(Actor[int]):
    async def handle(self, message: int) -> int:
        return message


def tree(seen: Seen) -> Supervisor:
    # One message handled makes it healthy again, so that every crash is the first of its row: no delay.
    backoff = Backoff(first=0.0, reset_after=1)
    victim = Child("victim", partial(Victim, seen), mailbox=Mailbox(16), on_crash="fail", backoff=backoff)
    siblings = [Child(f"sibling {number}", Sibling, mailbox=Mailbox(16)) for number in range(SIBLINGS)]
    return Supervisor("root", intensity=None, children=[victim, *siblings])


async def load(system: System, id: str, seen: Seen) -> None:
    ref = system.ref(id)
    while not seen.ended:
        begun = time.perf_counter()
        await ref.ask(1)
        if seen.into is not None:
            seen.into.append(time.perf_counter() - begun)


async def crash_for(system: System, seconds: float, every: float) -> None:
    until = trio.current_time() + seconds
    victim = system.ref("victim")
    while trio.current_time() < until:
        await victim.ask(False)
        try:
            await victim.ask(True)
        except ActorCrashed:
            pass
        await trio.sleep(every)


async def observe(seen: Seen, times: Times, every: float) -> None:
    async with open_system(tree(seen), observer=lambda _event: None) as system, trio.open_nursery() as nursery:
        for number in range(SIBLINGS):
            for _ in range(ASKERS_EACH):
                nursery.start_soon(load, system, f"sibling {number}", seen)
        await crash_for(system, times.warmup, every)
        seen.downs.clear()
        until = trio.current_time() + times.seconds
        for crashing in itertools.cycle((True, False)):
            if trio.current_time() >= until and seen.quiet:
                break
            if crashing:
                seen.into = seen.crashing
                await crash_for(system, PHASE_S, every)
            else:
                seen.into = seen.quiet
                await trio.sleep(PHASE_S)
        seen.ended = True


def seen_in(times: Times, every: float) -> Seen:
    seen = Seen()
    trio.run(observe, seen, times, every)
    return seen


def p99(latencies: list[float]) -> float:
    return sorted(latencies)[int(0.99 * len(latencies))]


def crash_ready(times: Times) -> dict[str, float]:
    downs = seen_in(times, OFTEN_S).downs
    return {"figure": median(downs) * 1e6, "crashes": len(downs), "longest_us": max(downs) * 1e6}


def crash_siblings(times: Times) -> dict[str, float]:
    """Twice as long as the other rows: a p99 needs it."""
    seen = seen_in(Times(times.warmup, 2 * times.seconds), SELDOM_S)
    quiet, crashing = p99(seen.quiet) * 1e6, p99(seen.crashing) * 1e6
    return {
        "figure": crashing / quiet,
        "p99_quiet_us": quiet,
        "p99_crashing_us": crashing,
        "asks": len(seen.quiet) + len(seen.crashing),
    }
