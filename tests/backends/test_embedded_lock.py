"""One process at a time in a data directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.embedded.errors import CannotOpen, DataDirectoryInUse
from backends.embedded.lock import data_directory_lock

HOLD = """
import sys
from pathlib import Path
from backends.embedded.lock import data_directory_lock
with data_directory_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_directory_is_made_and_the_holder_named(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    with data_directory_lock(directory):
        assert (directory / "lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(DataDirectoryInUse, match=str(os.getpid())) as refused, data_directory_lock(directory):
            pass
        assert refused.value.pid == os.getpid()
        assert str(directory) in str(refused.value)


def test_it_can_be_held_again_after_it_was_let_go(tmp_path: Path) -> None:
    for _ in range(2):
        with data_directory_lock(tmp_path):
            pass
    with pytest.raises(ZeroDivisionError), data_directory_lock(tmp_path):
        raise ZeroDivisionError
    with data_directory_lock(tmp_path):
        pass


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotOpen, match="file"), data_directory_lock(tmp_path / "file"):
        pass


@pytest.mark.process
def test_a_killed_holder_locks_nobody_out(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DataDirectoryInUse) as refused, data_directory_lock(tmp_path):
            pass
        assert refused.value.pid == holder.pid
        holder.kill()
    with data_directory_lock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
