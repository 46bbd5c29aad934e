"""Seeded schedules: the one place that reaches into trio's scheduler.

One seed is one order in which runnable tasks take their turns, so a failure that needs a certain order can be
found by trying many seeds, and seen again by its number.
"""

import random

import trio._core._run as trio_scheduler

_SWITCH = "_ALLOW_DETERMINISTIC_SCHEDULING"


def seed_schedule(seed: int) -> None:
    """From here on, the order in which runnable tasks run depends on *seed* alone.

    Private to trio, and what its Hypothesis support rests on. The switch stays on: without a seed, the order is
    as random as it was. Raises RuntimeError when trio no longer has what this needs.
    """
    names = vars(trio_scheduler)
    if _SWITCH not in names or not isinstance(names.get("_r"), random.Random):
        raise RuntimeError(
            f"this trio has no {_SWITCH} with a Random called _r in trio._core._run any more: "
            "seeded schedules need another way in"
        )
    names[_SWITCH] = True  # declared Final
    names["_r"].seed(seed)
