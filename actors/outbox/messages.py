"""What `outbox` understands. It works by itself; nobody needs to tell it anything."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """→ `Backlog | None`: how much was on its way to the bus at the last look; None while another instance relays."""
