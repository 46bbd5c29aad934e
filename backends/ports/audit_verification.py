"""Checking the audit trail: every chain from its checkpoint (or its beginning) to its head.

Pure but for the reading, which an adapter does (`Trail`); the verdict is the same whichever engine keeps the rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from backends.ports.audit_chain import ORIGIN, Fields, chain_hash
from backends.ports.stores import AuditBreak, AuditHead, AuditVerdict, Progress, Trusted


class Bounds(NamedTuple):
    """A chain as its store describes it.

    Rows `dropped + 1` to `last` are there; `base` is the hash of row `dropped` and `signature` the checkpoint's
    (0, `ORIGIN` and "" when nothing was dropped); `head` is the hash of row `last`; `stored` the highest sequence
    that any row has, read in the same moment.
    """

    chain: str
    dropped: int
    base: bytes
    signature: str
    last: int
    head: bytes
    stored: int


class Link(NamedTuple):
    sequence: int
    hash: bytes
    fields: Fields


class Trail(Protocol):
    """What an adapter reads for a verification."""

    async def bounds(self) -> Sequence[Bounds]:
        """All chains, by name."""
        ...

    async def links(self, chain: str, after: int, last: int) -> Sequence[Link]:
        """The next rows of *chain* with *after* < sequence ≤ *last*, in order, as many as are hashed between two
        turns of the loop; [] when there is none."""
        ...


async def verify(trail: Trail, *, trusted: Trusted, expected: Iterable[AuditHead], progress: Progress) -> AuditVerdict:
    """See `AuditStore.verify`."""
    wanted: dict[str, dict[int, str]] = {}
    for head in expected:
        wanted.setdefault(head.chain, {})[head.sequence] = head.hash
    chains = await trail.bounds()
    reported = _Reported(progress, sum(chain.last - chain.dropped for chain in chains))
    checked = [await _check(trail, bounds, wanted.pop(bounds.chain, {}), trusted, reported) for bounds in chains]
    lost = [
        AuditBreak(chain, 1, f"the whole chain is missing, up to row {max(heads)}") for chain, heads in wanted.items()
    ]
    return AuditVerdict(
        rows=sum(chain.rows for chain in checked),
        heads=tuple(chain.head for chain in checked),
        broken=(*(chain.broken for chain in checked if chain.broken is not None), *lost),
    )


class _Checked(NamedTuple):
    rows: int
    head: AuditHead
    broken: AuditBreak | None


class _Reported:
    """Rows looked at so far, of all chains together."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def more(self, rows: int) -> None:
        self._done += rows
        self._progress(min(self._done, self._total), self._total)


async def _check(
    trail: Trail, bounds: Bounds, wanted: Mapping[int, str], trusted: Trusted, reported: _Reported
) -> _Checked:
    while True:
        walk = _Walk(bounds, wanted)
        walk.start(trusted)
        while walk.broken is None and (links := await trail.links(bounds.chain, walk.sequence, bounds.last)):
            for link in links:
                if not walk.step(link):
                    break
            reported.more(len(links))
        walk.end()
        if walk.broken is None:
            return walk.checked()
        # Retention may have dropped, under a checkpoint, the very rows that seemed to be missing.
        now = {again.chain: again for again in await trail.bounds()}.get(bounds.chain)
        if now is None or now.dropped <= bounds.dropped:
            return walk.checked()
        bounds = now


class _Walk:
    """One chain, row by row. Stops at the first that does not hold."""

    def __init__(self, bounds: Bounds, wanted: Mapping[int, str]) -> None:
        self._bounds = bounds
        self._wanted = wanted
        self.sequence, self.hash = bounds.dropped, bounds.base
        self.broken: AuditBreak | None = None

    def start(self, trusted: Trusted) -> None:
        """The checkpoint, if rows were dropped; without one, a chain begins with nothing."""
        bounds = self._bounds
        if not bounds.dropped:
            self.hash = ORIGIN
        elif not trusted(AuditHead(bounds.chain, bounds.dropped, bounds.base.hex()), bounds.signature):
            self._break(1, f"rows 1 to {bounds.dropped} are missing, and their checkpoint is not signed with our key")
        self._compare()

    def step(self, link: Link) -> bool:
        due = self.sequence + 1
        if link.sequence != due:
            self._break(due, f"row {due} is missing")
        elif link.hash != (expected := chain_hash(self._bounds.chain, due, self.hash, link.fields)):
            self._break(due, f"row {due} ({link.fields[0]}) was changed")
        else:
            self.sequence, self.hash = due, expected
            self._compare()
        return self.broken is None

    def end(self) -> None:
        """The chain must end where its head says, and not before a head that was signed."""
        bounds, due = self._bounds, self.sequence + 1
        if self.sequence < bounds.last:
            self._break(due, f"row {due} is missing: the chain ends before row {bounds.last}")
        elif self.hash != bounds.head:
            self._break(self.sequence, f"row {self.sequence} is not the one that was written last")
        elif bounds.stored > bounds.last:
            self._break(due, f"row {due} was added behind the chain's head")
        elif self._wanted and max(self._wanted) > self.sequence:
            self._break(due, f"row {due} is missing: the signed head is at row {max(self._wanted)}")

    def checked(self) -> _Checked:
        head = AuditHead(self._bounds.chain, self.sequence, self.hash.hex())
        return _Checked(self.sequence - self._bounds.dropped, head, self.broken)

    def _compare(self) -> None:
        signed = self._wanted.get(self.sequence)
        if signed is not None and signed != self.hash.hex():
            self._break(
                self.sequence, f"row {self.sequence} is not the one of the signed head: rows up to it were rewritten"
            )

    def _break(self, sequence: int, what: str) -> None:
        if self.broken is None:
            self.broken = AuditBreak(self._bounds.chain, sequence, what)
