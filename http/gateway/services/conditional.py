"""Entity tags and preconditions (RFC 9110 §8.8.3, §13.1). Pure.

Every tag made here is strong: the entity's version in quotes.
"""

import re

_TAG = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def etag(version: int) -> bytes:
    return b'"%d"' % version


def matches(header: bytes, version: int | None, *, weak: bool) -> bool:
    """Whether the list of tags in *header* (or `*`) holds the current one; *version* None: there is none.

    *weak*: compare as If-None-Match does, where `W/"1"` equals `"1"`; If-Match compares strongly. What is
    not an entity tag matches nothing.
    """
    if version is None:
        return False
    if header.strip() == b"*":
        return True
    current = etag(version)
    return any(tag == current and (weak or not prefix) for prefix, tag in _TAG.findall(header))


def precondition_holds(if_match: bytes | None, if_none_match: bytes | None, version: int | None) -> bool:
    """Whether a write may go on, given the current version (None: the entity does not exist)."""
    if if_match is not None and not matches(if_match, version, weak=False):
        return False
    return if_none_match is None or not matches(if_none_match, version, weak=True)
