"""What the peers that are HTTP servers share: token, users to read, backlog, audits."""

import json
import time
from pathlib import Path

from bench.process import Failed, Process, fetch
from bench.registry import Session

USERS = 128  # read in turn; all are cached after the warm-up
SUBJECT = "bench"
SCOPES = ("users:read", "users:write")
DRAIN_S = 20.0  # how long consumers may take to be done after the load has ended
QUIET_S = 0.15  # reads' audits are published every 50 ms: the backlog must stay at 0 longer than that


class HttpPeer:
    """A server with `/users`. Subclasses launch it and know its backlog and its audit trail."""

    def __init__(self) -> None:
        self.url = self.token = ""
        self.paths = Path()
        self.expected_audits = 0
        self.session: Session | None = None
        self.process: Process | None = None

    def launch(self, session: Session) -> None:
        """Start the server, wait until it is ready, set `process`, `url` and `token`."""
        raise NotImplementedError

    def backlog(self) -> int:
        """Events published and not yet consumed."""
        return 0

    def count_audits(self) -> tuple[int, bool]:
        """How many audits of `SUBJECT` are stored, and whether that is all (False: at least so many)."""
        raise NotImplementedError

    def start(self, session: Session) -> None:
        """Launch, make the users, and read each once: the load client looks at statuses alone, this at content."""
        self.session = session
        self.launch(session)
        try:
            ids = [self._new_user(number) for number in range(USERS)]
            for id in ids:
                if json.loads(fetch(f"{self.url}/users/{id}", self.token))["id"] != id:
                    raise Failed(f"{self.url}/users/{id} is another user")
        except (OSError, ValueError, KeyError) as error:
            raise Failed(f"{self.url}/users: {error!r}") from error
        self.expected_audits = 2 * USERS
        self.paths = session.folder / "paths"
        self.paths.write_text("\n".join(f"/users/{id}" for id in ids))
        self.settle()

    def settle(self) -> float | None:
        """Wait until nothing is left to consume; seconds until then, or None when `DRAIN_S` was not enough."""
        started = time.monotonic()
        quiet_since: float | None = None
        while (now := time.monotonic()) - started < DRAIN_S:
            if self.backlog():
                quiet_since = None
            elif quiet_since is None:
                quiet_since = now
            elif now - quiet_since >= QUIET_S:
                return quiet_since - started
            time.sleep(0.05)
        return None

    def finish(self) -> list[str]:
        """Does the audit trail hold one row for every request that was answered, and no other?"""
        assert self.session is not None
        if not self.session.thorough:
            return []
        expected = self.expected_audits
        found, complete = self.count_audits()
        if found == expected or (not complete and found < expected):
            return []
        return [f"{found} audit rows for {expected} answered requests"]

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def _new_user(self, number: int) -> str:
        user = {"name": f"Reader {number}", "email": f"reader{number}@bench.example", "bio": "Is read."}
        answer = json.loads(fetch(f"{self.url}/users", self.token, json.dumps(user).encode()))
        id = answer["id"]
        assert isinstance(id, str)
        return id
