"""Housekeeping by the clock."""

from functools import partial

import pytest
import trio
from actor_helpers import child, counts, tree
from trio.testing import MockClock

from actors.metrics import Metrics
from actors.runtime import ActorCrashed
from actors.storage.maintenance import Job, RunJob, StorageMaintenance
from backends.ports.entities import StoreUnavailable


async def test_jobs_run_by_the_clock_and_a_purge_until_nothing_is_left(autojump_clock: MockClock) -> None:
    runs: list[tuple[str, float]] = []
    backlog = [500, 500, 20, 0]

    async def checkpoint() -> None:
        runs.append(("checkpoint", trio.current_time()))

    async def purge() -> int:
        runs.append(("purge", trio.current_time()))
        return backlog.pop(0) if backlog else 0

    jobs = [
        Job(name="checkpoint", every=10, run=checkpoint),
        Job(name="purge", every=25, run=purge, until_empty=True),
    ]
    async with tree(child("maintenance", partial(StorageMaintenance, jobs, Metrics()))):
        await trio.sleep(31)
    assert runs == [("checkpoint", 10), ("checkpoint", 20), *[("purge", 25)] * 4, ("checkpoint", 30)]


async def test_a_job_that_fails_or_hangs_is_counted_and_runs_again(autojump_clock: MockClock) -> None:
    async def fail() -> None:
        raise StoreUnavailable("away")

    metrics = Metrics()
    jobs = [
        Job(name="fails", every=10, run=fail),
        Job(name="hangs", every=15, run=trio.sleep_forever, timeout=2),
    ]
    async with tree(child("maintenance", partial(StorageMaintenance, jobs, metrics))) as system:
        await trio.sleep(33)
        assert system.snapshot()["children"][0]["restarts"] == 0
    assert counts(metrics, "weir_maintenance_runs_total") == {("fails", "failed"): 3, ("hangs", "timeout"): 2}


async def test_after_a_crash_the_timers_run_again(autojump_clock: MockClock) -> None:
    runs = []

    async def run() -> None:
        runs.append(trio.current_time())

    job = Job(name="job", every=10, run=run)
    async with tree(child("maintenance", partial(StorageMaintenance, [job], Metrics()), retry=False)) as system:
        with pytest.raises(ActorCrashed):
            await system.ref("maintenance").ask(RunJob("no such job"))
        await trio.sleep(11)
    assert runs == [10]
