"""The pytest side: the fixture, the marker, the option, and what a failed test shows."""

import inspect
import shlex
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol

import pytest

from actors.runtime.testing.clock import run_in_virtual_time
from actors.runtime.testing.probe import Probe
from actors.runtime.testing.running import Node, RunningSystem, open_test_system
from actors.runtime.testing.schedules import seed_schedule

DEFAULT_SEED = 0
_SYSTEMS = pytest.StashKey[list[RunningSystem]]()


class OpenSystem(Protocol):
    """The type of the `actor_system` fixture; see `open_test_system`."""

    def __call__(
        self,
        *nodes: Node | Probe,
        no_dead_letters: bool = False,
        shutdown_deadline: float = 25.0,
    ) -> AbstractAsyncContextManager[RunningSystem]: ...


@pytest.fixture
def actor_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test's schedule: by the option, the marker, or else always the same."""
    return _seed(request.node)


@pytest.fixture
def actor_system(request: pytest.FixtureRequest, actor_seed: int) -> OpenSystem:
    """Opens systems in virtual time: `async with actor_system(Child(...), Probe("mailer")) as system:`."""
    systems = request.node.stash.setdefault(_SYSTEMS, [])
    return partial(open_test_system, seed=actor_seed, watch=systems.append)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("actors").addoption(
        "--actor-seed",
        type=int,
        metavar="N",
        help="run every actor test on schedule N alone, also those marked with `schedules`",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("trio"):
        raise pytest.UsageError("actors.runtime.testing needs the pytest-trio plugin")
    config.addinivalue_line("markers", "schedules(n): run the test once on each of n schedules of its tasks")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("schedules")
    if marker is None:
        return
    if hasattr(metafunc.function, "hypothesis"):
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: Hypothesis seeds the scheduler itself for each example; instead of "
            "@pytest.mark.schedules, draw the seed and pass it to open_test_system(seed=...) or seed_schedule"
        )
    match marker.args:
        case (int(count),) if count >= 1 and not marker.kwargs:
            pass
        case _:
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: write @pytest.mark.schedules(50), with n >= 1")
    only = metafunc.config.getoption("actor_seed")
    seeds = range(count) if only is None else [only]
    if "actor_seed" not in metafunc.fixturenames:
        metafunc.fixturenames.append("actor_seed")
    metafunc.parametrize("actor_seed", seeds, indirect=True, ids=[f"seed{seed}" for seed in seeds])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # pytest-trio takes a clock from a test's own arguments alone; how to run a test, from its first `trio` marker.
    for item in items:
        if "actor_system" in _fixtures(item) and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=run_in_virtual_time), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    if "actor_seed" in _fixtures(item):
        seed_schedule(_seed(item))
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and report.failed and "actor_seed" in _fixtures(item):
        seed = _seed(item)
        again = shlex.join(["pytest", item.nodeid, f"--actor-seed={seed}"])
        report.sections.append(("actor schedule", f"seed {seed}; the same schedule again:\n{again}"))
        for system in item.stash.get(_SYSTEMS, []):
            lines = [f"{at:10.3f}  {what}" for at, what in system.timeline]
            report.sections.append(("actor events (virtual seconds)", "\n".join(lines)))
    return report


def _fixtures(item: pytest.Item) -> list[str]:
    names: list[str] = getattr(item, "fixturenames", [])
    return names


def _seed(item: Any) -> int:
    callspec = getattr(item, "callspec", None)
    if callspec is not None and "actor_seed" in callspec.params:
        return int(callspec.params["actor_seed"])
    option = item.config.getoption("actor_seed")
    return DEFAULT_SEED if option is None else int(option)
