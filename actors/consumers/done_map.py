"""Which offsets above a committed one are done, as text for the metadata of a commit. Pure.

Kafka allows 4096 bytes beside an offset. Two encodings, the smaller one is taken: runs (alternating lengths of
unfinished and finished offsets) suit long stretches, a bit an offset suits a mixture. Both begin at the committed
offset. Beside them stands the mark: records below it may have been in a handler's hands when the process ended.

`w1:<mark - offset>:<map>`; the map is "r" (runs) or "b" (bits) and base64, or nothing.

Source of the idea: parallel-consumer's `OffsetMapCodecManager`.
"""

import binascii
from collections.abc import Iterable, Sequence
from typing import NamedTuple

LIMIT = 4096
"""Bytes of metadata that a broker takes (`offset.metadata.max.bytes`)."""

MAP_LIMIT = LIMIT - 32
"""What is left for the map."""

BITS_ALWAYS_FIT = (MAP_LIMIT - 1) * 3 // 4 * 8
"""Offsets that a map of bits covers within the limit."""

MOST_OFFSETS = 1 << 32
"""A map that claims to cover more was not written here."""

_PREFIX = "w1"

Range = tuple[int, int]
"""Offsets from the first up to, not including, the second."""


class Progress(NamedTuple):
    """What metadata says beside its offset. `done` are ascending and disjoint."""

    mark: int
    done: tuple[Range, ...] = ()


class Unreadable(ValueError):
    """Metadata that somebody else wrote: nothing is known but the offset."""


def encode(offset: int, mark: int, done: Sequence[Range]) -> tuple[str, bool]:
    """The metadata for a commit at *offset*, "" when there is nothing to say; and whether all of *done* fitted.

    What does not fit is left out from the top: after a restart those are handled again.
    """
    text, fitted = encode_map(offset, done)
    ahead = max(0, mark - offset)
    return (f"{_PREFIX}:{ahead}:{text}" if ahead or text else ""), fitted


def encode_map(offset: int, done: Sequence[Range]) -> tuple[str, bool]:
    """The map alone, at most `MAP_LIMIT` characters, and whether all of *done* fitted."""
    if not done:
        return "", True
    runs = bytearray()
    room = (MAP_LIMIT - 1) * 3 // 4 - 2  # two bytes for the padding that is not written
    at = offset
    whole = True
    for first, end in done:
        more = _varint(first - at) + _varint(end - first)
        if len(runs) + len(more) > room:
            whole = False
            break
        runs += more
        at = end
    span = done[-1][1] - offset
    if span <= BITS_ALWAYS_FIT and (not whole or (span + 7) // 8 < len(runs)):
        return "b" + _text(_bits(offset, done, span)), True
    return "r" + _text(bytes(runs)), whole


def decode(offset: int, metadata: str) -> Progress:
    """Raises `Unreadable`."""
    if not metadata:
        return Progress(offset)
    try:
        prefix, ahead, text = metadata.split(":")
        if prefix != _PREFIX or len(metadata) > LIMIT or not 0 <= int(ahead) <= MOST_OFFSETS:
            raise Unreadable(f"not metadata of ours: {metadata[:40]!r}")
        raw = binascii.a2b_base64(text[1:] + "=" * (-len(text[1:]) % 4), strict_mode=True)
        if text[:1] == "r":
            done = tuple(_from_runs(offset, raw))
        elif text[:1] == "b":
            done = tuple(_from_bits(offset, raw))
        elif text:
            raise Unreadable(f"a map of an unknown kind: {text[:1]!r}")
        else:
            done = ()
    except Unreadable:
        raise
    except ValueError as error:
        raise Unreadable(f"not metadata of ours: {error}") from None
    return Progress(offset + int(ahead), done)


def _text(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).rstrip(b"=").decode()


def _bits(offset: int, done: Sequence[Range], span: int) -> bytes:
    bits = 0
    for first, end in done:
        bits |= ((1 << (end - first)) - 1) << (first - offset)
    return bits.to_bytes((span + 7) // 8, "little")


def _from_bits(offset: int, raw: bytes) -> Iterable[Range]:
    bits = int.from_bytes(raw, "little")
    at = offset
    while bits:
        zeros = (bits & -bits).bit_length() - 1
        bits >>= zeros
        ones = (~bits & (bits + 1)).bit_length() - 1
        bits >>= ones
        yield at + zeros, at + zeros + ones
        at += zeros + ones


def _varint(value: int) -> bytes:
    """LEB128, as in Protocol Buffers."""
    raw = bytearray()
    while value > 0x7F:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    raw.append(value)
    return bytes(raw)


def _from_runs(offset: int, raw: bytes) -> Iterable[Range]:
    numbers: list[int] = []
    value = shift = 0
    for byte in raw:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            numbers.append(value)
            value = shift = 0
    if shift or len(numbers) % 2 or sum(numbers) > MOST_OFFSETS or 0 in numbers[1::2]:
        raise Unreadable("its runs are damaged")
    at = offset
    for gap, run in zip(numbers[::2], numbers[1::2], strict=True):
        yield at + gap, at + gap + run
        at += gap + run
