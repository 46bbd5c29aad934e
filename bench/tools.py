"""Programs that pip does not bring: where they are, and how to get those that are missing. Installs nothing."""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.process import ROOT, Skipped

HOW = {
    "vegeta": "`make bench` installs it when Go is on PATH",
    "h2load": "apt-get install nghttp2-client",
    "nginx": "apt-get install nginx-light (1.18 or newer, with auth_request)",
    "redis-server": "`make services` installs it",
    "postgres": "`make services` installs it",
    "kafka": "`make services` installs it (it needs Java 17 or newer)",
}
# Beside our own interpreter, where `make bench` puts them; and where Debian keeps servers, which is not on every PATH.
KAFKA, POSTGRES = ROOT / ".services" / "kafka" / "libs", Path("/usr/lib/postgresql")
FOLDERS = (str(Path(sys.executable).parent), "/usr/sbin", "/usr/local/sbin")


def find(name: str) -> str | None:
    """The path of the program *name*, one of `HOW`."""
    if name == "kafka":
        return next(map(str, KAFKA.glob("kafka_*.jar")), None) if shutil.which("java") else None
    if name == "postgres":
        return next(map(str, POSTGRES.glob("*/bin/postgres")), None) or shutil.which(name)
    found = shutil.which(name)
    for folder in FOLDERS:
        found = found or shutil.which(name, path=folder)
    return found


def tool(name: str) -> str:
    """As `find`. Raises `Skipped`, which says how to get it."""
    found = find(name)
    if found is None:
        raise Skipped(missing([name]))
    return found


def missing(names: Iterable[str]) -> str:
    """What of *names* is not here and how to get it, in one line; empty when all are."""
    return "; ".join(f"needs {name}: {HOW[name]}" for name in names if find(name) is None)
