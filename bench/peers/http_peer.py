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
    """A server that answers GET on every path of the file `paths`. Subclasses launch it and know its backlog."""

    kind = ""
    needs: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.url = self.token = ""
        self.paths = Path()
        self.expected_audits = self.uncertain_audits = 0
        """Requests answered so far; and those that a client left unanswered, which may count or not."""
        self.session: Session | None = None
        self.process: Process | None = None

    def launch(self, session: Session) -> None:
        """Start the server, wait until it is ready, set `process`, `url` and `token`."""
        raise NotImplementedError

    def prepare(self) -> list[str]:
        """Make what will be read, and see that it is read right; returns its paths. Clients look at statuses alone.

        Raises OSError, ValueError or KeyError for an answer that is not what it should be.
        """
        raise NotImplementedError

    def backlog(self) -> int:
        """Events published and not yet consumed."""
        return 0

    def count_audits(self) -> tuple[int, bool] | None:
        """How many requests `SUBJECT`'s audit trail has, and whether that is all (False: at least so many)."""
        return None

    def start(self, session: Session) -> None:
        self.session = session
        self.launch(session)
        try:
            paths = self.prepare()
        except (OSError, ValueError, KeyError) as error:
            raise Failed(f"{self.url}: {error!r}") from error
        self.paths = session.folder / "paths"
        self.paths.write_text("\n".join(paths))
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
        self.settle()
        counted = self.count_audits()
        if counted is None:
            return []
        found, complete = counted
        least, most = self.expected_audits, self.expected_audits + self.uncertain_audits
        if least <= found <= most or (not complete and found < least):
            return []
        return [f"{found} audit rows for {least} answered requests (and at most {most - least} unanswered ones)"]

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()


class UsersPeer(HttpPeer):
    """One with `/users`, which it stores."""

    kind = "users"

    def prepare(self) -> list[str]:
        ids = [self._new_user(number) for number in range(USERS)]
        for id in ids:
            if json.loads(fetch(f"{self.url}/users/{id}", self.token))["id"] != id:
                raise Failed(f"{self.url}/users/{id} is another user")
        self.expected_audits = 2 * USERS
        return [f"/users/{id}" for id in ids]

    def _new_user(self, number: int) -> str:
        user = {"name": f"Reader {number}", "email": f"reader{number}@bench.example", "bio": "Is read."}
        answer = json.loads(fetch(f"{self.url}/users", self.token, json.dumps(user).encode()))
        id = answer["id"]
        assert isinstance(id, str)
        return id
