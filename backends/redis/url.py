"""`redis.url` as redis-py reads it, and the Sentinel form that redis-py has no URL for."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio.connection import parse_url

SENTINEL = "+sentinel"
_SENTINEL_PORT = 26379


class RedisUrlError(Exception):
    """`redis.url` names nothing that can be connected to. One line, without what may be a password."""

    def __init__(self, must: str) -> None:
        super().__init__(f"redis.url {must}")


@dataclass(frozen=True, slots=True)
class Target:
    """Where Redis is. `options` are redis-py's, for the server; `place` is for people and holds no password.

    With `sentinels` it is the master that they know as `service`; `sentinel_options` are redis-py's, for them.
    """

    options: dict[str, Any]
    place: str
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_options: dict[str, Any] | None = None


def parse(url: str) -> Target:
    """redis:// rediss:// unix://, or redis+sentinel://[user:password@]host[:port],host…/service[/db] (rediss+…: TLS).

    A Sentinel's own credentials: ?sentinel_username=…&sentinel_password=…. Raises RedisUrlError.
    """
    scheme = url.partition("://")[0]
    try:
        if scheme.endswith(SENTINEL):
            return _sentinels(url, scheme.removesuffix(SENTINEL))
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        # redis-py's own words name the option, never a value.
        reason = str(error) if "://" in str(error) or str(error).startswith("Invalid value for") else "is malformed"
        raise RedisUrlError(f"cannot be read: {reason}") from None
    if scheme == "unix":
        return Target(options, f"unix://{options.get('path', '')}")
    host, port, db = options.get("host", "localhost"), options.get("port", 6379), options.get("db", 0)
    return Target(options, f"{scheme}://{host}:{port}/{db}")


def _sentinels(url: str, scheme: str) -> Target:
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not hosts:
        raise RedisUrlError("must be redis+sentinel://host:port,host:port/service for Sentinel")
    extra = {name: values[0] for name, values in parse_qs(parts.query).items()}
    own = {name.removeprefix("sentinel_"): extra.pop(name) for name in ("sentinel_username", "sentinel_password")
           if name in extra}  # fmt: skip
    query = "&".join(f"{name}={value}" for name, value in extra.items())
    # The rest is the server's: read by redis-py, for a host that the Sentinels will replace.
    options: dict[str, Any] = dict(parse_url(f"redis://{user + '@' if user else ''}unused/{db or 0}?{query}"))
    del options["host"]
    options["ssl"] = scheme == "rediss"
    return Target(
        options,
        f"{scheme}{SENTINEL}://{hosts}/{service}",
        tuple(_address(host) for host in hosts.split(",")),
        unquote(service),
        own,
    )


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise RedisUrlError("must name each Sentinel as host:port")
    return parts.hostname, parts.port or _SENTINEL_PORT
