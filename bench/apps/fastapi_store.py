"""The FastAPI peer's models and its SQLite store."""

import sqlite3
import threading
from typing import NamedTuple

from pydantic import BaseModel, Field

SCHEMA = """
CREATE TABLE IF NOT EXISTS token (digest BLOB PRIMARY KEY, subject TEXT, scopes TEXT, expires_at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS user (id TEXT PRIMARY KEY, name TEXT, email TEXT, bio TEXT, version INTEGER,
    created_at REAL, updated_at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (id TEXT PRIMARY KEY, at REAL, subject TEXT, action TEXT, entity TEXT,
    outcome TEXT, request_id TEXT);
"""


class NewUser(BaseModel):
    name: str = Field(min_length=1, max_length=200)
    email: str = Field(min_length=3, max_length=320)
    bio: str = Field("", max_length=2000)


class User(NewUser):
    id: str
    version: int
    created_at: float
    updated_at: float


class Grant(NamedTuple):
    subject: str
    scopes: frozenset[str]
    expires_at: float


class Audit(NamedTuple):
    id: str
    at: float
    subject: str
    action: str
    entity: str
    outcome: str
    request_id: str


class Store:
    """SQLite in WAL mode, every commit fsynced. One connection to write and one to read, a lock for each.

    Methods block; call them in the thread pool.
    """

    def __init__(self, path: str) -> None:
        self._writer = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._writer.execute("PRAGMA journal_mode=WAL")
        self._writer.execute("PRAGMA synchronous=FULL")
        self._writer.executescript(SCHEMA)
        self._reader = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._writing, self._reading = threading.Lock(), threading.Lock()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def grant(self, digest: bytes) -> Grant | None:
        with self._reading:
            sql = "SELECT subject, scopes, expires_at FROM token WHERE digest = ?"
            row = self._reader.execute(sql, (digest,)).fetchone()
        return Grant(row[0], frozenset(row[1].split()), row[2]) if row else None

    def add_grant(self, digest: bytes, grant: Grant) -> None:
        with self._writing:
            row = (digest, grant.subject, " ".join(sorted(grant.scopes)), grant.expires_at)
            self._writer.execute("INSERT INTO token VALUES (?, ?, ?, ?)", row)

    def user(self, id: str) -> User | None:
        with self._reading:
            sql = "SELECT id, name, email, bio, version, created_at, updated_at FROM user WHERE id = ?"
            row = self._reader.execute(sql, (id,)).fetchone()
        if row is None:
            return None
        names = ("id", "name", "email", "bio", "version", "created_at", "updated_at")
        return User(**dict(zip(names, row, strict=True)))

    def add_user(self, user: User, entry: Audit) -> None:
        """The user and its audit in one transaction; durable on return."""
        row = (user.id, user.name, user.email, user.bio, user.version, user.created_at, user.updated_at)
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                self._writer.execute("INSERT INTO user VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                self._writer.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)", entry)
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def add_audits(self, entries: list[Audit]) -> None:
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)", entries)
            self._writer.execute("COMMIT")
