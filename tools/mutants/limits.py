"""A pytest plugin for mutants: what fails fastest runs first, and what hangs or eats the memory ends.

The process ends at once, and by no exception, because a mutant may swallow any.
"""

import os
import resource
import signal
import time
from collections.abc import Generator

import pytest
from hypothesis import Phase, settings

TEST_S = int(os.environ.get("MUTANT_TEST_S", "3"))
"""Of processor time, for one test."""
THOROUGH = os.environ.get("MUTANT_THOROUGH") == "1"
"""Whether to run the searches, and each test on all of its schedules. Costs several times as much, and kills few."""
SCHEDULES = 2
LOOK_S = 0.5
IDLE_S = 0.005
"""Of processor time between two looks: who has less twice is waiting, however busy the machine is."""
MEMORY = 2 << 30
SEARCHES = ("test_scenarios.py", "test_state_machine.py")
"""They look at many trees, which takes seconds where other tests take milliseconds."""

resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
# One failure is enough: nobody reads the smallest one.
settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], database=None)
settings.load_profile("mutants")


def _is_search(item: pytest.Item) -> bool:
    return item.path.name in SEARCHES


def _schedule(item: pytest.Item) -> int:
    """The number of its schedule, of the many on which one test runs."""
    call = getattr(item, "callspec", None)
    number: int = call.params.get("schedule", 0) if call is not None else 0
    return number


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not THOROUGH:
        items[:] = [item for item in items if _schedule(item) < SCHEDULES and not _is_search(item)]
    items.sort(key=lambda item: (_is_search(item), _schedule(item)))


class Watch:
    """Looks at the running test from time to time. On a mock clock one that waits does so for ever."""

    def __init__(self, test_s: float) -> None:
        self._used = time.process_time()
        self._end = self._used + test_s
        self._idle = 0

    def look(self, _signal: int, _frame: object) -> None:
        before, self._used = self._used, time.process_time()
        self._idle = self._idle + 1 if self._used - before < IDLE_S else 0
        if self._idle == 2 or self._used > self._end:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    signal.signal(signal.SIGALRM, Watch(TEST_S * 8 if _is_search(item) else TEST_S).look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_S, LOOK_S)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
