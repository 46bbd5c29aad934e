"""Identifiers: UUID version 7 (RFC 9562 §5.7), so that ids sort by the time they were made.

No state: the clock and the randomness are arguments.
"""

import os
import time
from collections.abc import Callable

_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62
_RANDOM_62 = (1 << 62) - 1


def new_id(
    now_ns: Callable[[], int] = time.time_ns,
    random: Callable[[int], bytes] = os.urandom,
) -> str:
    """A new UUIDv7 in its 36-character form.

    48 bits of Unix milliseconds, then the fraction of that millisecond in `rand_a` (RFC 9562 §6.2, method 3:
    12 bits, about 0.25 µs each), then 62 random bits. Ids of one process sort by time as far as its clock does.
    """
    milliseconds, rest_ns = divmod(now_ns(), 1_000_000)
    fraction = rest_ns * 4096 // 1_000_000
    tail = int.from_bytes(random(8), "big") & _RANDOM_62
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | _VERSION_7 | fraction << 64 | _VARIANT | tail
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
