"""What can be wrong with the embedded database before any work starts. Pure.

EmbeddedError            the operator must do something; the message names the file and the cure
  UnusableDatabase       the file cannot be used
    NotADatabase         it is something else, or another program's database
    NewerSchema          a newer Weir wrote it
    CannotOpen           it cannot be opened, read or written
    EngineTooOld         the SQLite that Python links lacks what the schema needs
  DataDirectoryInUse     another process holds the data directory
"""

from pathlib import Path

from backends.ports.engine import EngineUnusable


class EmbeddedError(EngineUnusable):
    """Base of the errors above."""


class UnusableDatabase(EmbeddedError):
    def __init__(self, path: Path, problem: str, cure: str) -> None:
        super().__init__(f"{path}: {problem}; {cure}")
        self.path = path


class NotADatabase(UnusableDatabase):
    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem, "move the file away, or point data.dir somewhere else")


class NewerSchema(UnusableDatabase):
    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(
            path,
            f"its schema is version {found} and this Weir knows up to {known}",
            "run the Weir that wrote it, or a newer one, or restore a backup",
        )


class CannotOpen(UnusableDatabase):
    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem, "check that its directory exists on a local disk, is writable and has space")


class EngineTooOld(UnusableDatabase):
    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem, "run a Python that links a newer SQLite with FTS5")


class DataDirectoryInUse(EmbeddedError):
    def __init__(self, directory: Path, pid: int | None) -> None:
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(f"{directory} is in use by {holder}; stop it first, or point data.dir somewhere else")
        self.directory = directory
        self.pid = pid
