"""What the storage actors understand. `storage` takes writes, `storage_reader` reads, `storage_scans` long scans."""

from dataclasses import dataclass

from backends.ports.entities import Key, Write


@dataclass(frozen=True, slots=True)
class Transact:
    """→ the decision's answer, once durable. `Reject` carries the error of a `Refused` decision."""

    write: Write


@dataclass(frozen=True, slots=True)
class Read:
    """→ `Entity | None`. Reads of one moment become one query."""

    key: Key


@dataclass(frozen=True, slots=True)
class Scan:
    """→ `list[Entity]` of *kind* with ids above *after*, by id."""

    kind: str
    after: str
    limit: int
