"""Points in time as the API writes and reads them (RFC 3339); inside they are Unix seconds. Pure."""

import math
import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_UNIX = re.compile(r"\d{1,11}(\.\d{1,9})?", re.ASCII)
# A `+` that was not percent-encoded in a query string arrives as a space.
_LOST_PLUS = re.compile(r"(.*[0-9]) (\d\d:\d\d)", re.ASCII)


def rfc3339(at: float, timespec: str = "milliseconds") -> str:
    """*at* (Unix seconds) in UTC, cut off after *timespec*: `2026-01-31T23:59:59.250Z`."""
    moment = _EPOCH + timedelta(microseconds=math.floor(at * 1e6))
    return moment.isoformat(timespec=timespec).removesuffix("+00:00") + "Z"


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 date-time (with its offset) or of a number of Unix seconds; else ValueError."""
    if _UNIX.fullmatch(text):
        return float(text)
    lost = _LOST_PLUS.fullmatch(text)
    if lost is not None:
        text = f"{lost[1]}+{lost[2]}"
    if not _DATE_TIME.fullmatch(text):
        raise ValueError(f"not an RFC 3339 date-time with an offset, nor Unix seconds: {text!r}")
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"no such date or time of day: {text!r}") from None
