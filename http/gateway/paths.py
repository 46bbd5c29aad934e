"""One canonical form of a request's path, for routing, authorization, audit and forwarding alike. Pure.

Proxies and frameworks disagree about what `/a/..;x/b`, `/a%2fb` or `/a//b` means, and each disagreement has
been somebody's authorization bypass (CVE-2021-29492, GHSA-xcx5-93pw-jw2w). What is ambiguous is refused.
Source: RFC 3986 §6.2.2 (normalization), RFC 9112 §3.2 (request targets).
"""

import re

_SIMPLE = re.compile(rb"/|(?:/[A-Za-z0-9_~\-][A-Za-z0-9._~\-]*)+/?")
_VISIBLE = re.compile(rb"[\x21-\x7e]+")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# Visible ASCII that RFC 3986 allows nowhere in a path, though browsers send some of it: escaped.
_ILLEGAL = re.compile(rb'["<>\[\]^`{|}]')
# `/` and `\` would make another path of it, `;` starts parameters in some servers.
_AMBIGUOUS = {0x2F: "%2F", 0x5C: "%5C", 0x3B: "%3B"}


class PathError(ValueError):
    """The path is refused; the message says why and is safe to show."""


def canonical(raw: bytes) -> str:
    """The canonical form of *raw*, the path of a request target as it was sent (without `?` and query).

    Escapes of unreserved characters are decoded, other escapes are written in upper case, illegal visible
    ASCII is escaped; nothing else changes, so a path that means the same to everyone stays as it is.
    The result is ASCII, starts with `/`, and `canonical(result) == result`. A trailing `/` is kept.

    Raises PathError for anything that two readers could read differently: dot segments (escaped or not), empty
    segments, escaped or plain `\\` and `;`, escaped `/`, control characters, invalid escapes, escapes that
    are not UTF-8, and targets that are no path (absolute-form, authority-form, `*`).
    """
    if _SIMPLE.fullmatch(raw) is not None:
        return raw.decode("ascii")
    if not raw.startswith(b"/"):
        raise PathError("the request target must be a path that starts with /")
    if _VISIBLE.fullmatch(raw) is None:
        raise PathError("the path holds a character that must be percent-encoded")
    for character in (b"\\", b";", b"#"):
        if character in raw:
            raise PathError(f"the path must not hold {character.decode()!r}")
    path = _ESCAPE.sub(_canonical_escape, _ILLEGAL.sub(_escape, raw))
    _check_text(path)
    segments = path[1:].split(b"/")
    if b"" in segments[:-1]:
        raise PathError("the path must not hold an empty segment (//)")
    if b"." in segments or b".." in segments:
        raise PathError("the path must not hold a dot segment")
    return path.decode("ascii")


def _canonical_escape(match: re.Match[bytes]) -> bytes:
    digits = match[1]
    if digits is None:
        raise PathError("the path holds a % that is no percent-encoding")
    byte = int(digits, 16)
    if byte in _UNRESERVED:
        return bytes([byte])
    if byte in _AMBIGUOUS:
        raise PathError(f"the path must not hold {_AMBIGUOUS[byte]}")
    return b"%%%02X" % byte


def _escape(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def _check_text(path: bytes) -> None:
    """Raise PathError if what the escapes stand for is no text, or holds control characters (C0, DEL, C1)."""
    decoded = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), path)
    try:
        text = decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise PathError("the path is not UTF-8") from None
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in text):
        raise PathError("the path must not hold control characters")
