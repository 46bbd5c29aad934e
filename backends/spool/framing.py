"""How records lie in a spool's files. Pure.

A frame is one write: its length and checksum, when it was written, how many records it has, and the records as
MessagePack. What does not match its checksum ends the file: a write that a kill -9 or a power failure cut short.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from backends.ports.events import NewRecord

MAGIC = b"WEIRSPL1"
"""The first bytes of every file."""

_HEAD = struct.Struct("<IIQI")
"""Payload bytes, CRC-32 of all behind it, Unix milliseconds, records."""

_CHECKED_FROM = 8

HEAD_SIZE = _HEAD.size

_Row = tuple[str, bytes | None, bytes | None, tuple[tuple[str, bytes], ...], int | None]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Row]).decode


class Frame(NamedTuple):
    """A frame's place in its file, without its records. `end` is where the next one begins."""

    start: int
    end: int
    written_ms: int
    records: int


def encode(records: Sequence[NewRecord], written_ms: int) -> bytes:
    payload = _encode([(r.topic, r.key, r.value, r.headers, r.partition) for r in records])
    counted = struct.pack("<QI", written_ms, len(records))
    checksum = zlib.crc32(payload, zlib.crc32(counted))
    return struct.pack("<II", len(payload), checksum) + counted + payload


def frames(content: bytes | memoryview) -> Iterator[Frame]:
    """The whole frames of a file's *content*, its magic included; it ends before the first that is not whole."""
    at = len(MAGIC)
    if bytes(content[:at]) != MAGIC:
        return
    while at + HEAD_SIZE <= len(content):
        length, checksum, written_ms, records = _HEAD.unpack_from(content, at)
        end = at + HEAD_SIZE + length
        if end > len(content) or zlib.crc32(content[at + _CHECKED_FROM : end]) != checksum:
            return
        yield Frame(at, end, written_ms, records)
        at = end


def decode(frame: bytes | memoryview) -> list[NewRecord]:
    """The records of one whole frame."""
    return [NewRecord(*row) for row in _decode(frame[HEAD_SIZE:])]
