"""Each test of a service has a world of its own. One that waits asks for `autojump_clock` itself: pytest-trio
takes the clock from the test's own arguments alone."""

from collections.abc import AsyncIterator

import pytest

from tests.services.fakes import World, world


@pytest.fixture
async def api() -> AsyncIterator[World]:
    async with world() as made:
        yield made
