"""What every consumers' ledger promises."""

from collections.abc import AsyncIterator
from functools import partial

import pytest

from backends.asyncio_bridge import crossing
from backends.ports.event_log import Attempt
from backends.ports.ledger import ConsumerLedger
from backends.postgres.ledger import ConsumerLedger as PostgresLedger
from tests.backends.postgres_pool import open_pool
from tests.engines.postgres import Server, emptied

pytestmark = pytest.mark.engines

ONE, TWO, OTHER = ("t", 0), ("t", 1), ("u", 0)


@pytest.fixture(scope="module")
def database(postgres: Server) -> str:
    return postgres.create_database()


@pytest.fixture
async def ledger(postgres: Server, database: str) -> AsyncIterator[ConsumerLedger]:
    async with open_pool(postgres.local_dsn(database)) as pool:
        await crossing(partial(emptied, postgres.admin_dsn(database)))
        yield PostgresLedger(pool)


def attempt(n: int, error: str = "boom \0 é\ud800") -> Attempt:
    return Attempt(n, 1.5, 1.25, 1.125, error)


async def test_an_attempt_comes_back_as_it_went_in_and_the_last_one_stands(ledger: ConsumerLedger) -> None:
    await ledger.save_attempt("g", ONE, 7, attempt(1))
    await ledger.save_attempt("g", ONE, 7, attempt(2))
    await ledger.save_attempt("g", ONE, 9, attempt(1, ""))
    assert await ledger.attempts("g", ONE) == {7: attempt(2), 9: attempt(1, "")}
    assert await ledger.attempts("g", TWO) == {}
    assert await ledger.attempts("other", ONE) == {}


async def test_what_is_below_a_committed_offset_is_forgotten_and_nothing_else(ledger: ConsumerLedger) -> None:
    for group in ("g", "other"):
        for partition in (ONE, TWO, OTHER):
            for offset in (1, 2, 3):
                await ledger.save_attempt(group, partition, offset, attempt(1))
    await ledger.forget_attempts_below("g", {ONE: 3, OTHER: 1})
    await ledger.forget_attempts_below("g", {})
    assert [sorted(await ledger.attempts("g", partition)) for partition in (ONE, TWO, OTHER)] == [
        [3],
        [1, 2, 3],
        [1, 2, 3],
    ]
    assert sorted(await ledger.attempts("other", ONE)) == [1, 2, 3]


async def test_dropped_records_are_counted_once_and_remembered(ledger: ConsumerLedger) -> None:
    assert await ledger.drop(ONE, [3, 1, 3]) == 2
    assert await ledger.drop(ONE, [3, 4]) == 1
    assert await ledger.drop(ONE, []) == 0
    assert await ledger.dropped(ONE, range(10)) == {1, 3, 4}
    assert await ledger.dropped(ONE, [2, 3]) == {3}
    assert await ledger.dropped(TWO, [1, 3]) == set()
