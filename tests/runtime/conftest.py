"""Seeded schedules: the one place that reaches into trio's scheduler."""

import pytest
import trio._core._run as trio_scheduler

SEEDS = range(25)


def seed_schedule(number: int) -> None:
    """From here on, the order in which runnable tasks run depends on *number* alone.

    Private to trio, and what its Hypothesis support rests on; `test_seeded_schedules.py` is the canary.
    The switch stays on: without a seed, the order is as random as it was.
    """
    vars(trio_scheduler)["_ALLOW_DETERMINISTIC_SCHEDULING"] = True  # declared Final
    trio_scheduler._r.seed(number)


@pytest.fixture(params=SEEDS, ids=lambda number: f"seed{number}")
def schedule(request: pytest.FixtureRequest) -> int:
    """Run the test once for each of many schedules; its id shows the seed."""
    number: int = request.param
    seed_schedule(number)
    return number
