"""For those who write actors: a pytest plugin that runs a tree in virtual time, on a schedule of your choice.

Switch it on in the conftest.py at the root of your tests: `pytest_plugins = ["actors.runtime.testing"]`.
`docs/testing-actors.md` shows every part at work. Needs pytest and pytest-trio, knows the runtime alone, and
nothing of the runtime imports it.
"""

from actors.runtime.testing.clock import RealClock
from actors.runtime.testing.faults import Effect, Fault, Hang, InjectedFault, Raise, Slow, with_faults
from actors.runtime.testing.plugin import (
    OpenSystem,
    actor_seed,
    actor_system,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_generate_tests,
    pytest_runtest_call,
    pytest_runtest_makereport,
)
from actors.runtime.testing.probe import NEVER, After, Call, Probe
from actors.runtime.testing.running import RunningSystem, open_test_system
from actors.runtime.testing.schedules import seed_schedule

__all__ = [
    "NEVER",
    "After",
    "Call",
    "Effect",
    "Fault",
    "Hang",
    "InjectedFault",
    "OpenSystem",
    "Probe",
    "Raise",
    "RealClock",
    "RunningSystem",
    "Slow",
    "actor_seed",
    "actor_system",
    "open_test_system",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
    "seed_schedule",
    "with_faults",
]
