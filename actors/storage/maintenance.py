"""The `storage_maintenance` actor: housekeeping by the clock (checkpoints, purges), one job at a time."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
import trio

from actors.metrics import Metrics
from actors.runtime import Actor

log = structlog.get_logger(__name__)

# A purge that never ends must not keep the checkpoint from running.
_MOST_ROUNDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One kind of housekeeping: `run` is called every `every` seconds and may take `timeout`.

    With `until_empty` it is called again at once while it returns a positive number, as a purge with a limit does.
    """

    name: str
    every: float
    run: Callable[[], Awaitable[object]]
    timeout: float = 30.0
    until_empty: bool = False


@dataclass(frozen=True, slots=True)
class RunJob:
    """→ None. Run the job of that name now; the timers tell it, an operator may ask it."""

    name: str


class StorageMaintenance(Actor[RunJob]):
    """A job that fails is logged, counted and run again at its next time: housekeeping crashes nothing."""

    def __init__(self, jobs: Sequence[Job], metrics: Metrics) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._runs = metrics.counter(
            "weir_maintenance_runs_total", "Housekeeping by outcome (ok, failed, timeout).", ("job", "outcome")
        )

    async def on_start(self) -> None:
        for job in self._jobs.values():
            self.timer(job.every, RunJob(job.name), every=job.every)

    async def handle(self, message: RunJob) -> None:
        job = self._jobs[message.name]
        outcome = "timeout"
        try:
            with trio.move_on_after(job.timeout):
                await _run(job)
                outcome = "ok"
        except Exception:
            log.exception("housekeeping failed", job=job.name)
            outcome = "failed"
        self._runs.inc(job.name, outcome)


async def _run(job: Job) -> None:
    for _ in range(_MOST_ROUNDS):
        done = await job.run()
        if not (job.until_empty and done):
            return
        await trio.lowlevel.checkpoint()  # between two rounds requests go first
