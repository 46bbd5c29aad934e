"""One spool folder a process, and nothing left behind in one that nobody holds."""

from contextlib import contextmanager

import pytest

from backends.ports.events import NewRecord
from backends.spool.spool import Spool
from composition.slots import Adoption, claimed_slot

RECORDS = [NewRecord("audit", b"k%d" % n, b"value", ()) for n in range(1200)]


@contextmanager
def spool_in(folder, capacity=1 << 20):
    spool = Spool(folder, capacity)
    try:
        yield spool
    finally:
        spool.close()


def test_each_process_gets_a_folder_of_its_own_and_a_free_one_is_taken_again(tmp_path):
    with claimed_slot(tmp_path) as first:
        with claimed_slot(tmp_path) as second:
            assert (first, second) == (1, 2)
        with claimed_slot(tmp_path) as again:
            assert again == 2


@pytest.fixture
def left(tmp_path):
    """What a process that is gone left in slot 2."""
    with spool_in(tmp_path / "2") as spool:
        assert spool.write(RECORDS[:600])
        assert spool.write(RECORDS[600:])
    return tmp_path


async def test_what_nobody_holds_is_moved_in_order_and_its_files_go(left):
    with claimed_slot(left) as slot, spool_in(left / str(slot)) as own:
        adoption = Adoption(left, own, 1 << 20)
        assert await adoption.run() == 1200
        assert [*own.head(2000)] == RECORDS
        assert await adoption.run() == 0
    assert sorted(path.name for path in (left / "2").iterdir()) == ["lock"]


async def test_what_its_process_holds_is_left_alone(left):
    with claimed_slot(left) as slot, claimed_slot(left), spool_in(left / str(slot)) as own:
        assert await Adoption(left, own, 1 << 20).run() == 0
        assert own.events == 0


async def test_what_finds_no_room_stays_where_it_is(left):
    with claimed_slot(left) as slot, spool_in(left / str(slot), capacity=1000) as own:
        assert await Adoption(left, own, 1 << 20).run() == 0
    with spool_in(left / "2") as still:
        assert still.events == 1200
