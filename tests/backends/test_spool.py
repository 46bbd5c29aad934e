"""The spool on disk: order, bounds, and what a kill -9 or a torn write leaves of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.ports.events import NewRecord
from backends.spool.framing import MAGIC, decode, encode, frames
from backends.spool.spool import Spool

RECORDS = st.lists(
    st.builds(
        NewRecord,
        st.text(max_size=5),
        st.none() | st.binary(max_size=5),
        st.none() | st.binary(max_size=20),
        st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), max_size=2).map(tuple),
        st.none() | st.integers(0, 9),
    ),
    max_size=5,
)


def record(number: int, size: int = 10) -> NewRecord:
    return NewRecord("audit", b"k", str(number).encode().rjust(size, b"0"))


def numbers(records: object) -> list[int]:
    return [int(r.value) for r in records]  # type: ignore[attr-defined]


def write(spool: Spool, *values: int) -> bool:
    return spool.write([record(value) for value in values])


def drain(spool: Spool, limit: int = 100) -> list[int]:
    found: list[int] = []
    while spool.events:
        found += numbers(spool.head(limit))
        spool.forget()
    return found


@given(st.lists(RECORDS, max_size=4), st.data())
def test_a_file_cut_anywhere_gives_the_whole_frames_before_the_cut(
    batches: list[list[NewRecord]], data: st.DataObject
) -> None:
    encoded = [encode(batch, 5) for batch in batches]
    content = MAGIC + b"".join(encoded)
    cut = data.draw(st.integers(0, len(content)))
    ends = [len(MAGIC) + sum(map(len, encoded[: n + 1])) for n in range(len(encoded))]
    found = list(frames(content[:cut]))
    assert [frame.end for frame in found] == [end for end in ends if end <= cut]
    assert [decode(content[frame.start : frame.end]) for frame in found] == batches[: len(found)]
    assert all(frame.written_ms == 5 for frame in found)


@given(RECORDS.filter(bool), st.data())
def test_a_changed_byte_ends_the_file(batch: list[NewRecord], data: st.DataObject) -> None:
    content = bytearray(MAGIC + encode(batch, 5))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    assert list(frames(bytes(content))) == []


def test_first_in_first_out_in_batches_of_about_the_limit(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20)
    for first in range(0, 30, 3):
        assert write(spool, first, first + 1, first + 2)
    assert numbers(spool.head(7)) == list(range(6))
    assert numbers(spool.head(7)) == list(range(6))
    spool.forget()
    assert numbers(spool.head(1)) == [6, 7, 8]
    assert drain(spool) == list(range(6, 30))
    assert (spool.size, spool.events, spool.age()) == (0, 0, 0.0)
    spool.close()


def test_what_has_no_room_is_refused_whole(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    taken = 0
    while write(spool, taken):
        taken += 1
    assert 0 < spool.size <= 1000
    assert spool.events == taken
    spool.head(1)
    spool.forget()
    assert write(spool, taken)
    assert drain(spool) == list(range(1, taken + 1))
    spool.close()


def test_files_that_are_read_are_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20, segment=500)
    for number in range(200):
        assert write(spool, number)
    assert len(list(tmp_path.glob("*.spool"))) > 10
    assert drain(spool, 10) == list(range(200))
    assert len(list(tmp_path.glob("*.spool"))) == 1
    spool.close()


def test_more_than_the_memory_keeps_is_read_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.spool.spool._CACHED", 5)
    spool = Spool(tmp_path, 1 << 20, segment=500)
    seen: list[int] = []
    for number in range(100):
        assert write(spool, number)
        if number % 3 == 0:
            seen += numbers(spool.head(2))
            spool.forget()
    assert seen + drain(spool, 7) == list(range(100))
    spool.close()


@pytest.mark.parametrize("delivered", [0, 3, 10])
def test_a_new_process_goes_on_where_the_old_one_was(tmp_path: Path, delivered: int) -> None:
    spool = Spool(tmp_path, 1 << 20, segment=300)
    for number in range(10):
        write(spool, number)
    for _ in range(delivered):
        spool.head(1)
        spool.forget()
    again = Spool(tmp_path, 1 << 20)  # the old one is not closed: it was killed
    write(again, 10)
    assert again.events == 11 - delivered
    assert drain(again) == list(range(delivered, 11))
    assert Spool(tmp_path, 1 << 20).events == 0


@pytest.mark.parametrize("lost", [1, 5, 30])
def test_a_torn_end_costs_what_was_being_written_alone(tmp_path: Path, lost: int) -> None:
    spool = Spool(tmp_path, 1 << 20)
    write(spool, 1, 2)
    write(spool, 3)
    spool.close()
    (file,) = tmp_path.glob("*.spool")
    os.truncate(file, file.stat().st_size - lost)
    again = Spool(tmp_path, 1 << 20)
    write(again, 4)
    assert drain(again) == [1, 2, 4]
    again.close()


def test_a_lost_position_delivers_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20)
    write(spool, 1)
    write(spool, 2)
    spool.head(1)
    spool.forget()
    spool.close()
    (tmp_path / "position").write_bytes(b"garbage garbage garbage")
    again = Spool(tmp_path, 1 << 20)
    assert drain(again) == [1, 2]
    again.close()


def test_a_disk_that_is_full_is_a_spool_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, 1 << 20)
    write(spool, 1)
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:7], at))
    assert not write(spool, 2)
    monkeypatch.undo()
    assert write(spool, 3)
    spool.close()
    assert drain(Spool(tmp_path, 1 << 20)) == [1, 3]


def test_the_age_is_the_oldest_ones(tmp_path: Path) -> None:
    now = [100.0]
    spool = Spool(tmp_path, 1 << 20, now=lambda: now[0])
    write(spool, 1)
    now[0] = 103.0
    write(spool, 2)
    assert spool.age() == pytest.approx(3.0)
    spool.head(1)
    spool.forget()
    assert spool.age() == pytest.approx(0.0)
    spool.close()


async def test_a_sync_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    spool = Spool(tmp_path, 1 << 20)
    write(spool, 1)
    await spool.sync()
    assert synced == [str(tmp_path / f"{1:016d}.spool"), str(tmp_path)]
    spool.close()


KILLED = """
import os, sys
from pathlib import Path
from backends.ports.events import NewRecord
from backends.spool.spool import Spool
spool = Spool(Path(sys.argv[1]), 1 << 24, segment=2000)
number = 0
while True:
    assert spool.write([NewRecord("audit", b"k", b"%d" % number)])
    os.write(1, b"%d\\n" % number)
    number += 1
    if number % 3 == 0:
        os.write(2, b"%s\\n" % spool.head(1)[0].value)
        spool.forget()
"""


@pytest.mark.process
def test_a_kill_9_loses_nothing_that_was_written(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = b"".join(process.stdout.readline() for _ in range(2_000))
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read()
        delivered = process.stderr.read().split()
    written = [int(line) for line in said.split(b"\n")[:-1]]
    spool = Spool(tmp_path, 1 << 24)
    left = drain(spool)
    spool.close()
    # One more may have been written than said, and the last delivery may not have been noted.
    assert left[0] in (len(delivered), len(delivered) - 1, len(delivered) + 1)
    assert left == list(range(left[0], left[-1] + 1))
    assert left[-1] >= written[-1]
