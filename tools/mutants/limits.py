"""A pytest plugin for mutants: one that hangs or eats the memory ends, and with it the run of its tests.

The kernel ends the process (SIGALRM has its default action), because a mutant may swallow any exception.
"""

import os
import resource
import signal
from collections.abc import Generator

import pytest

TEST_S = int(os.environ.get("MUTANT_TEST_S", "20"))
MEMORY = 2 << 30

resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    signal.alarm(TEST_S)
    try:
        return (yield)
    finally:
        signal.alarm(0)
