"""Room for one more connection to an upstream. Pure.

Source: Envoy's circuit breakers (max connections, max pending requests).
"""

from typing import Literal


def admit(open: int, waiting: int, max_connections: int, max_pending: int) -> Literal["connect", "wait", "refuse"]:
    """What a request does that found no idle connection, with *open* connections and *waiting* others before it."""
    if open < max_connections and not waiting:
        return "connect"
    return "wait" if waiting < max_pending else "refuse"
