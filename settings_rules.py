"""The rules of settings: each turns one TOML value into a typed one, or raises `Broken` saying what it must be.

Pure, of the standard library alone. `settings.py` says which key follows which rule.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

T = TypeVar("T")
Rule = Callable[[object], T]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Broken(Exception):
    """`must` completes "key = value: …"; `at` is the place inside the value (`[1]`, `.GET`); `shown`,
    when given, stands for the value in the message."""

    def __init__(self, must: str, at: str = "", shown: object = MISSING) -> None:
        super().__init__(must)
        self.must, self.at, self.shown = must, at, shown


class Bind(NamedTuple):
    """A host (a name, or an address; IPv6 without brackets) and a port; port 0: the system chooses one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def dotted(at: str, name: str) -> str:
    """The key *name* below *at*, quoted where TOML would quote it, so that it stays on one line."""
    quoted = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
    return f"{at}.{quoted}" if at else quoted


def text(pattern: str, must: str) -> Rule[str]:
    def rule(value: object) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII):
            return value
        raise Broken(must)

    return rule


def words(value: object) -> str:
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value
    raise Broken("must be text on one line, and not blank")


def choice(*words: str) -> Rule[str]:
    *most, last = (f'"{word}"' for word in words)
    return text("|".join(words), f"must be {', '.join(most)} or {last}")


def refused(cure: str) -> Rule[str]:
    """Only "" is taken. What else stands there may hold a password, so the message does not repeat it."""

    def rule(value: object) -> str:
        if value != "":
            raise Broken(cure, shown="…")
        return ""

    return rule


def redis_url(value: object) -> str:
    """As redis-py reads it, which reads the rest of it later. It may hold a password, so no message repeats it."""
    if value == "":
        return ""
    known = isinstance(value, str) and re.fullmatch(r"(rediss?|unix|rediss?\+sentinel)://[^\s]+", value)
    if not known:
        raise Broken(
            'must be "redis://user:password@host:port/db" (rediss:// with TLS), "unix:///path" or '
            '"redis+sentinel://host:port,host:port/service", or "" for none; a Cluster is not supported',
            shown="…",
        )
    return str(value)


def postgres_dsn(value: object) -> str:
    """A URL as asyncpg reads it. It may hold a password, so no message repeats it."""
    if value == "":
        return ""
    must = 'must be "postgresql://user:password@host:port/database", or "" for embedded'
    if not isinstance(value, str) or not re.fullmatch(r"postgres(ql)?://[^\s]+", value):
        raise Broken(must, shown="…")
    try:
        database = urlsplit(value).path.strip("/")
    except ValueError:
        raise Broken(must, shown="…") from None
    if not database:
        raise Broken("must name a database: " + must.removeprefix("must be "), shown="…")
    return value


def servers(value: object) -> str:
    """`host:port[,host:port…]`, or "" for none."""
    if value == "":
        return ""
    must = 'must be "host:port" or several of them, separated by commas, or "" for embedded'
    if not isinstance(value, str):
        raise Broken(must)
    for part in value.split(","):
        if address(part.strip(), "", must)[2] is None:
            raise Broken(must)
    return value


def endpoint(value: object) -> str:
    """An absolute http(s) URL with any path and query, or "" for none."""
    if value == "":
        return ""
    must = 'must be "https://host/path" without user, password and fragment, or ""'
    match = isinstance(value, str) and re.fullmatch(r"(https?://[^/?#]+)[!-~]*", value)
    if not match or "#" in match[0] or '"' in match[0]:
        raise Broken(must)
    address(match[1], "https?://", must)
    return match[0]


def on_loopback(url: str) -> bool:
    """Whether what an `endpoint` names is this very machine."""
    _, host, _ = address(url.partition("?")[0].split("/", 3)[2], "", "")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bearer(value: object) -> str:
    """A token as a header carries it (RFC 6750 §2.1), or "" for none; no message repeats it."""
    if not isinstance(value, str) or not re.fullmatch(r"([A-Za-z0-9._~+/-]+=*)?", value, re.ASCII):
        raise Broken("must be one Bearer token", shown="…")
    return value


def password(value: object) -> str:
    """Text of one line; no message repeats it."""
    if not isinstance(value, str) or not value.isprintable():
        raise Broken("must be text on one line", shown="…")
    return value


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise Broken("must be true or false")
    return value


def integer(least: int, most: int = 10**9, beyond: str = "") -> Rule[int]:
    """*beyond* replaces the message for a value above *most*."""

    def rule(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Broken("must be a whole number")
        if value < least:
            raise Broken(f"must be at least {least}")
        if value > most:
            raise Broken(beyond or f"must be at most {most}")
        return value

    return rule


def duration(value: object) -> float:
    """Seconds, 0 allowed. A bare number is refused: nobody tells seconds from milliseconds by its look."""
    scale = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    match = isinstance(value, str) and re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|[smhd])", value)
    if not match:
        raise Broken('must be a duration with its unit, such as "500ms", "10s", "5m", "1h" or "7d"')
    seconds = float(match[1]) * scale[match[2]] / 1000
    if seconds > 36_500 * 86_400:
        raise Broken('must be at most "36500d"')
    return seconds


def positive(value: object) -> float:
    """Seconds, more than 0."""
    seconds = duration(value)
    if not seconds:
        raise Broken("must be above zero")
    return seconds


def positive_or_none(value: object) -> float | None:
    """Seconds, more than 0, or "" for None."""
    return None if value == "" else positive(value)


def whole_seconds(value: object) -> int:
    """Seconds, 1 or more."""
    seconds = positive(value)
    if seconds % 1:
        raise Broken("must be whole seconds")
    return int(seconds)


def whole_seconds_or_none(value: object) -> int:
    """Seconds, 0 allowed. A fraction would be cut to 0, which means something else."""
    seconds = duration(value)
    if seconds % 1:
        raise Broken("must be whole seconds")
    return int(seconds)


def size(value: object) -> int:
    """Bytes."""
    match = isinstance(value, str) and re.fullmatch(r"([1-9][0-9]{0,8})(B|KiB|MiB|GiB)", value)
    if not match:
        raise Broken('must be a size above zero with its unit, such as "512B", "64KiB" or "1MiB"')
    return int(match[1]) << {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30}[match[2]]


def optional_size(value: object) -> int | None:
    """Bytes, or "" for None."""
    return None if value == "" else size(value)


def optional_file(value: object) -> Path | None:
    """A file's path, or "" for None."""
    if not isinstance(value, str) or "\0" in value:
        raise Broken('must name a file, such as "tls/cert.pem", or be empty')
    return Path(value) if value else None


def folder(value: object) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise Broken('must name a folder, such as "var"')
    return Path(value)


def address(value: object, scheme: str, must: str) -> tuple[str, str, int | None]:
    """Split `[scheme://]host[:port]` (*scheme*: a pattern with its `://`); the host without its brackets."""
    host = r"\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[A-Za-z0-9._-]+"
    match = isinstance(value, str) and re.fullmatch(f"({scheme})({host})(?::([0-9]{{1,5}}))?", value, re.ASCII)
    if not match or int(match[3] or 0) > 65535:
        raise Broken(must)
    try:
        if match[2][0] == "[":
            ipaddress.IPv6Address(match[2].strip("[]"))
        elif re.fullmatch("[0-9.]+", match[2]):
            ipaddress.IPv4Address(match[2])
    except ValueError:
        raise Broken(must) from None
    return match[1], match[2].strip("[]"), int(match[3]) if match[3] else None


def bind(value: object) -> Bind:
    must = 'must be host:port, such as "127.0.0.1:8000", "0.0.0.0:8000" or "[::1]:8000"'
    _, host, port = address(value, "", must)
    if port is None:
        raise Broken(must)
    return Bind(host, port)


def smtp(value: object) -> Bind | None:
    if value == "":
        return None
    must = 'must be "smtp://host:port" without user or password, or "" for .eml files under data.dir/outbox'
    _, host, port = address(value, "smtp://", must)
    return Bind(host, 25 if port is None else port)


def network(value: object) -> Network:
    try:
        found = ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise Broken('must be an address or a network, such as "10.0.0.0/8" or "fd00::/8"') from None
    if found.network_address != ipaddress.ip_interface(str(value)).ip:
        raise Broken(f'has bits set behind its mask; did you mean "{found}"?')
    return found


def origin(value: object) -> str:
    """An origin as browsers send it (RFC 6454 §6.2), or `*`: any other form would silently never match."""
    if value == "*":
        return "*"
    must = 'must be an exact origin: "scheme://host" or "scheme://host:port", without a path or a slash at the end'
    scheme, _, port = address(value, "[A-Za-z][A-Za-z0-9+.-]*://", must)
    sent = str(value).lower()
    if port is not None and port == {"http://": 80, "https://": 443}.get(scheme.lower()):
        sent = sent.rpartition(":")[0]
    if sent != value:
        raise Broken(f'is not how a browser sends it; write "{sent}"')
    return sent


def prefix(value: object) -> str:
    """A path prefix in the form request paths are compared in, so that it can match at all."""
    if not isinstance(value, str) or not value.startswith("/"):
        raise Broken('must start with "/"')
    if value == "/":
        return value
    if value.endswith("/"):
        raise Broken(f'must not end with "/"; write {json.dumps(value.rstrip("/") or "/")}')
    segments = value[1:].split("/")
    if "." in segments or ".." in segments or "" in segments:
        raise Broken('must have no ".", ".." or empty segment')
    try:
        plain = unquote(value, errors="strict")
        compared = quote(plain, safe="/!$&'()*+,=:@")
    except ValueError:
        raise Broken("must be UTF-8 text") from None
    if re.search(r"[\\;?#\x00-\x1f\x7f-\x9f]", plain):
        raise Broken("must have no backslash, semicolon, question mark, hash or control character")
    if compared != value:
        raise Broken(f'is not how paths are compared; write "{compared}"')
    return value


def target(value: object) -> str | tuple[str, ...]:
    """`service:…` and `asgi:…` as they are; upstreams as a tuple of `http(s)://host[:port]`."""
    name = r"[A-Za-z_]\w*"
    if isinstance(value, str) and re.fullmatch(rf"service:{name}|asgi:{name}(\.{name})*:{name}(\.{name})*", value):
        return value
    if isinstance(value, list):
        return each(_upstream, least=1)(value)
    return (_upstream(value),)


def _upstream(value: object) -> str:
    url = value.removesuffix("/") if isinstance(value, str) else value
    must = 'must be "service:NAME", "asgi:package.module:app" or "http://host:port" (or https) without a path'
    address(url, "https?://", must)
    return str(url)


def scopes(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise Broken('must be a table, such as { GET = "orders:read", "*" = "orders:write" }')
    for method, item in value.items():
        if method == "HEAD" or not re.fullmatch(r"[A-Z]+(-[A-Z]+)*|\*", method):
            raise Broken(
                'must stand under a method in capitals or "*" (HEAD uses GET\'s)', "." + dotted("", method), item
            )
    scope = text(r"[!#-\[\]-~]+", "must be one scope, without spaces, quotes or backslashes (RFC 6749)")
    return MappingProxyType({method: _inside("." + dotted("", method), scope, item) for method, item in value.items()})


def each(rule: Rule[T], least: int = 0) -> Rule[tuple[T, ...]]:
    def rule_of_all(value: object) -> tuple[T, ...]:
        if not isinstance(value, list) or len(value) < least:
            raise Broken(f"must be a list with at least {least} entry" if least else "must be a list")
        return tuple(_inside(f"[{index}]", rule, item) for index, item in enumerate(value))

    return rule_of_all


def _inside(at: str, rule: Rule[T], item: object) -> T:
    try:
        return rule(item)
    except Broken as broken:
        raise Broken(broken.must, at + broken.at, item if broken.shown is MISSING else broken.shown) from None
