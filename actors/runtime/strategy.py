"""Which children a failure concerns. Pure.

Source: Erlang/OTP design principles, "Supervisor Behaviour".
"""

from actors.runtime.spec import Restart, Strategy


def affected(strategy: Strategy, failed: int, count: int) -> range:
    """The positions, in start order, that go down and come up with the child at *failed*."""
    match strategy:
        case "one_for_one":
            return range(failed, failed + 1)
        case "one_for_all":
            return range(count)
        case "rest_for_one":
            return range(failed, count)


def restarts(restart: Restart, *, normal: bool) -> bool:
    """Whether a child that ended by itself comes back; *normal*: by `stop()`, not by a failure."""
    return restart == "permanent" or (restart == "transient" and not normal)
