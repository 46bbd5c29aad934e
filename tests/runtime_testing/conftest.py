"""Tests of the kit by its effect: whole test files in, pytest's verdict and output out."""

from collections.abc import Callable

import pytest

IMPORTS = """
import pytest
import trio
from actors.runtime import Actor, Backoff, Child, Mailbox, Reject, Supervisor
from actors.runtime.testing import NEVER, After, Call, Fault, Hang, Probe, Raise, Slow, open_test_system, with_faults

BOX = Mailbox(16)

class Echo(Actor):
    async def handle(self, message):
        return message
"""

RunFile = Callable[..., pytest.RunResult]


@pytest.fixture
def run_file(pytester: pytest.Pytester) -> RunFile:
    """Run a test file, with the kit as its only set-up, and the options given."""

    def run(source: str, *options: str) -> pytest.RunResult:
        pytester.makeconftest('pytest_plugins = ["actors.runtime.testing"]')
        pytester.makepyfile(test_it=IMPORTS + source)
        return pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:cacheprovider", "--strict-markers", *options)

    return run
