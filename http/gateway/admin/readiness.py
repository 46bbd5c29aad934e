"""Whether the system is ready to take requests, read off a snapshot of the tree. Pure."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from backends.ports.engine import Health

# A request-path child that comes back within this many seconds costs callers time, not errors.
GRACE_S = 1.0


class Readiness(NamedTuple):
    """`ready` False: /readyz answers 503. `degraded`: ready, but `reasons` names children that are not, or
    engines that are away."""

    ready: bool
    degraded: bool
    reasons: tuple[str, ...]


def readiness(
    snapshot: dict[str, Any], *, started: bool, draining: bool, request_path: Collection[str], engine: Health
) -> Readiness:
    """Args: *request_path*: the ids without which no request can be answered.

    An engine that was never reached keeps us from starting; one that went away does not take the instance out, as
    cached reads go on and the other instances would fare no better.
    """
    if draining:
        return Readiness(False, False, ("draining",))
    if not started:
        return Readiness(False, False, ("starting",))
    if not engine.reached:
        return Readiness(False, False, ("starting", *engine.problems))
    fatal: list[str] = []
    degraded: list[str] = [*engine.problems]
    for node in actors(snapshot):
        if node["state"] == "ready":
            # What an actor of an engine says of itself: it is well, the engine is away.
            if "degraded" in node.get("detail", ()):
                degraded.append(f"{node['id']}: {node['detail']['degraded']}")
            continue
        reason = f"{node['id']} is {node['state']}" + (f" ({node['last_error']})" if node["last_error"] else "")
        if node["id"] in request_path and node["state_age"] >= GRACE_S:
            fatal.append(reason)
        elif node["state"] in ("backoff", "stopped"):
            degraded.append(reason)
    return Readiness(not fatal, not fatal and bool(degraded), (*fatal, *degraded))


def actors(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The workers of a snapshot, in start order."""
    if "children" not in node:
        yield node
    for child in node.get("children", ()):
        yield from actors(child)
