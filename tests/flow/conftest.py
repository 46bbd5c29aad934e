from collections.abc import Iterator

import pytest

from tests.flow.server import Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a module that leave it as they found it."""
    with running(tmp_path_factory.mktemp("weir"), allow_kill=True) as server:
        yield server


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    return server.token()
