"""A pytest plugin: which tests call which functions of the runtime. They cannot notice a mutant of any other one."""

import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import pytest

FOLDER = str(Path("actors/runtime").resolve()) + os.sep


class Calls:
    """By test, without its parameters: the functions called, as `stem:first line`."""

    def __init__(self) -> None:
        self.by_test: dict[str, set[str]] = {}
        self._called: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._called = self.by_test.setdefault(item.nodeid.partition("[")[0], set())
        sys.settrace(self._on_call)
        try:
            return (yield)
        finally:
            sys.settrace(None)

    def _on_call(self, frame: FrameType, _event: str, _arg: object) -> None:
        code = frame.f_code
        if code.co_filename.startswith(FOLDER):
            self._called.add(f"{Path(code.co_filename).stem}:{code.co_firstlineno}")

    def pytest_sessionfinish(self) -> None:
        found = {test: sorted(called) for test, called in self.by_test.items()}
        Path(os.environ["MUTANT_CALLS"]).write_text(json.dumps(found))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Calls())
