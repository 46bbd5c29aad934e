"""The jobs that the settings ask for."""

import time
from pathlib import Path

from backends.embedded.database import Database
from backends.embedded.engine import Engine
from backends.ports.stores import AuditEntry
from composition import values
from composition.audit_key import AuditKeyFile
from settings import load


def entry(id: str, at: float) -> AuditEntry:
    return AuditEntry(id=id, at=at, subject="s", action="a", entity="e", outcome="ok", request_id="r")


async def test_audits_older_than_their_retention_go_behind_a_checkpoint_that_our_key_signed(tmp_path: Path) -> None:
    settings = load(None, {"WEIR_AUDIT__RETENTION": "1h"})
    with Database.open(tmp_path / "weir.db") as database:
        engine = Engine(database)
        audit, key = engine.audit(), AuditKeyFile(tmp_path)
        jobs = {job.name: job for job in values.housekeeping(engine, settings, audit, key)}
        async with engine.opened():
            now = time.time()
            old = [entry(f"old{n}", now - 3700) for n in range(250)]
            await audit.append("audit/0", [*old, entry("new", now - 3500)])
            assert jobs["audit_retention"].until_empty
            assert [await jobs["audit_retention"].run() for _ in range(3)] == [200, 50, 0]
            verdict = await audit.verify(trusted=AuditKeyFile(tmp_path)().trusted)
            assert (verdict.rows, verdict.broken) == (1, ())
    assert (tmp_path / "audit.key").stat().st_mode & 0o777 == 0o600


def test_without_a_retention_audits_are_kept_for_ever_and_no_key_is_needed(tmp_path: Path) -> None:
    with Database.open(tmp_path / "weir.db") as database:
        engine = Engine(database)
        jobs = values.housekeeping(engine, load(None, {}), engine.audit(), AuditKeyFile(tmp_path / "absent"))
    assert "audit_retention" not in {job.name for job in jobs}
