"""Which of several upstreams takes a request. Pure.

Source: Mitzenmacher, "The Power of Two Choices" (1996), for why the fewest outstanding; over a handful of upstreams
that one process alone counts for, the minimum itself is at hand and needs no sampling.
"""

from collections.abc import Sequence
from typing import Literal

Balance = Literal["least_outstanding", "round_robin"]


def choose(outstanding: Sequence[int | None], turn: int, balance: Balance) -> int | None:
    """The index to take; None when nobody is available.

    Args:
        outstanding: requests that each has in hand; None: it is not available.
        turn: grows by one a request. Who stands first in line moves with it, which is round robin, and
            among those with the fewest outstanding decides, so that idle upstreams take turns.
    """
    size = len(outstanding)
    chosen: int | None = None
    least = 0
    for step in range(size):
        index = (turn + step) % size
        count = outstanding[index]
        if count is None:
            continue
        if balance == "round_robin":
            return index
        if chosen is None or count < least:
            chosen, least = index, count
    return chosen
