"""The caller's trace context. Pure. Source: W3C Trace Context, §3.2."""

import re
from collections.abc import Sequence

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[!-~]*)?")
_MAX_LENGTH = 256


def traceparent(values: Sequence[bytes]) -> str:
    """The `traceparent` of a request from the values of its headers, or "" when there is no valid one.

    A version above 00 may carry more fields; `ff`, all-zero ids and several headers are invalid.
    """
    if len(values) != 1:
        return ""
    value = values[0].strip()
    match = _TRACEPARENT.fullmatch(value)
    if match is None or len(value) > _MAX_LENGTH:
        return ""
    version, trace_id, parent_id, more = match.groups()
    if version == b"ff" or (version == b"00" and more) or not trace_id.strip(b"0") or not parent_id.strip(b"0"):
        return ""
    return value.decode("ascii")
