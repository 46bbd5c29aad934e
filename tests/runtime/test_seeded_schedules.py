"""The canary of the seeded scheduler: when trio changes it, this fails, and no other test pretends."""

import trio
from trio.testing import MockClock

from tests.runtime.conftest import seed_schedule


def trace_of(number: int) -> str:
    trace: list[str] = []

    async def noter(name: str) -> None:
        for _ in range(4):
            trace.append(name)
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name in "abcdef":
                nursery.start_soon(noter, name)

    seed_schedule(number)
    trio.run(main, clock=MockClock())
    return "".join(trace)


def test_one_seed_is_one_schedule() -> None:
    assert trace_of(7) == trace_of(7)


def test_other_seeds_are_other_schedules() -> None:
    assert len({trace_of(number) for number in range(20)}) == 20
