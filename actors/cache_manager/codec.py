"""Cache values as bytes: a version, then msgpack. Pure.

The version is that of this format; a shape that gets a field with a default needs no new one.
"""

from typing import Any

import msgspec

from actors.cache_manager.messages import Loaded

_VERSION = b"\x01"


class Unreadable(Exception):
    """Another version of Weir wrote it, or nobody did."""


class Codec:
    """Values of one *shape* (a msgspec Struct or a dataclass), and None."""

    def __init__(self, shape: Any) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(shape | None)

    def encode(self, value: Any) -> bytes:
        return _VERSION + self._encoder.encode(value)

    def decode(self, raw: bytes, left: float) -> Loaded:
        """*left*: seconds that it is good for. Raises Unreadable."""
        if raw[:1] != _VERSION:
            raise Unreadable(f"version {raw[:1]!r}")
        try:
            return Loaded(self._decoder.decode(raw[1:]), left)
        except msgspec.MsgspecError as error:
            raise Unreadable(str(error)) from error
