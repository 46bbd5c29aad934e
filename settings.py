"""config.toml → frozen, typed settings: every key with its default and its rule, in one place.

An attribute is named like its key; durations are seconds, sizes bytes. Imports nothing of Weir: the
composition root reads it and gives each part its own few values.
"""
# ruff: noqa: RUF009 - the calls in the class bodies make fields, as `dataclasses.field` does

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

import settings_rules as rules
from settings_reader import ConfigError, Reader, defaults, required, rows, secret, section, setting
from settings_rules import Bind, Network

__all__ = [
    "Bind",
    "Changes",
    "ConfigError",
    "Limit",
    "MailRule",
    "Network",
    "Route",
    "Settings",
    "UserConsumer",
    "describe_changes",
    "load",
]

_COMBINATIONS = (
    "supported are embedded alone, embedded with Redis, PostgreSQL with Kafka, and PostgreSQL with Kafka and Redis"
)
_BUILT_IN_GROUPS = ("audit", "notification", "search", "invalidation", "deliveries")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The public listener. `drain_delay` is part of `shutdown_deadline`. `tls_cert` and `tls_key` are absolute once
    loaded, like `data.dir`; both or neither. `hsts`: whole seconds, 0 for no such header."""

    bind: Bind = setting("127.0.0.1:8000", rules.bind)
    workers: int = setting(1, rules.integer(1, 1, "embedded storage is one process; set it to 1"))
    tls_cert: Path | None = setting("", rules.optional_file)
    tls_key: Path | None = setting("", rules.optional_file)
    hsts: int = setting("365d", rules.whole_seconds_or_none)
    trusted_proxies: tuple[Network, ...] = setting([], rules.each(rules.network))
    request_timeout: float = setting("10s", rules.positive)
    max_body: int = setting("1MiB", rules.size)
    max_head: int = setting("32KiB", rules.size)
    max_header_fields: int = setting(128, rules.integer(1))
    max_in_flight: int = setting(512, rules.integer(1))
    max_connections: int = setting(4096, rules.integer(1))
    max_connections_per_address: int = setting(1024, rules.integer(1))
    keep_alive_timeout: float = setting("75s", rules.positive)
    header_timeout: float = setting("10s", rules.positive)
    handshake_timeout: float = setting("10s", rules.positive)
    body_timeout: float = setting("30s", rules.positive)
    body_rate: int = setting("1KiB", rules.size)
    write_timeout: float = setting("10s", rules.positive)
    h2c: bool = setting(False, rules.flag)
    drain_delay: float = setting("0s", rules.duration)
    shutdown_deadline: float = setting("25s", rules.positive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    bind: Bind = setting("127.0.0.1:8001", rules.bind)
    allow_kill: bool = setting(False, rules.flag)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """`dir` is absolute once loaded; a relative one is taken from the config file's folder."""

    dir: Path = setting("var", rules.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """`introspection_url` "": the built-in Auth Service. Else tokens are validated there, by a client with an id and a
    secret (HTTP Basic) or a token of its own (Bearer). `introspection_timeout`: for a turn, and as long for its answer.
    """

    introspection_url: str = setting("", rules.endpoint)
    introspection_client_id: str = setting("", rules.text(r"[ -~]*", "must be printable ASCII"))
    introspection_client_secret: str = secret("", rules.password)
    introspection_token: str = secret("", rules.bearer)
    introspection_audience: str = setting("", rules.text(r"[^\n]*", "must be text"))
    introspection_timeout: float = setting("2s", rules.positive)
    introspection_concurrency: int = setting(32, rules.integer(1, 1000))
    introspection_allow_http: bool = setting(False, rules.flag)
    realm: str = setting("weir", rules.text(r"[ !#-\[\]-~]+", "must be printable ASCII without quotes and backslashes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """`url` "": none. With it limits are counted there for every instance, and the cache has a second tier there;
    it goes with any of the other engines. Holds a password: never shown."""

    url: str = secret("", rules.redis_url)
    prefix: str = setting("weir", rules.text(r"[A-Za-z0-9_.-]{1,64}", "must be 1 to 64 letters, digits and _.-"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """`dsn` "": embedded. `timeout`: for one transaction, waiting for a connection included."""

    dsn: str = secret("", rules.postgres_dsn)
    pool_size: int = setting(12, rules.integer(2, 1000))
    timeout: float = setting("5s", rules.positive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kafka:
    """`bootstrap` "": embedded. `instance_id`: this instance's own name in its consumer groups (static membership),
    "" for none. `tls_ca` None: the system's certificates; absolute once loaded, like `data.dir`."""

    bootstrap: str = setting("", rules.servers)
    instance_id: str = setting("", rules.text(r"[A-Za-z0-9_.-]{0,200}", "must be at most 200 letters, digits and _.-"))
    security_protocol: str = setting("PLAINTEXT", rules.choice("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"))
    sasl_mechanism: str = setting("PLAIN", rules.choice("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"))
    username: str = setting("", rules.text(r"[^\n]*", "must be text"))
    password: str = secret("", rules.password)
    tls_ca: Path | None = setting("", rules.optional_file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """Exact origins, or `("*",)`. `max_age` is whole seconds, as its header is."""

    origins: tuple[str, ...] = setting([], rules.each(rules.origin))
    allow_credentials: bool = setting(False, rules.flag)
    max_age: int = setting("10m", rules.whole_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailRule:
    """`to`: addresses, or "entity.email". `template`: a file in `notifications.templates`, or one that comes with Weir.
    `changed` (): whatever changed. Whether there are such events, fields and files is seen where they are used."""

    events: tuple[str, ...] = required(rules.each(rules.words, least=1))
    to: tuple[str, ...] = required(rules.each(rules.words, least=1))
    template: str = required(rules.words)
    changed: tuple[str, ...] = setting([], rules.each(rules.words))


def _told(event: str) -> MailRule:
    return MailRule(events=(event,), to=("entity.email",), template=event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifications:
    """`smtp` None: messages become files under `data.dir`/outbox. `templates` is absolute once loaded."""

    smtp: Bind | None = setting("", rules.smtp)
    from_address: str = setting(
        "weir@localhost", rules.text(r"[^\s@<>,;\"]+@[^\s@<>,;\"]+", 'must be like "weir@host"')
    )
    allow_private_endpoints: bool = setting(False, rules.flag)
    secret_overlap: float = setting("24h", rules.duration)
    templates: Path = setting(".", rules.folder)
    rules: tuple[MailRule, ...] = rows(MailRule, _told("user.created"), _told("user.updated"), _told("user.deleted"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheTtl:
    """How long each kind is kept, and (`absent`) the knowledge that there is none."""

    user_profile: float = setting("5m", rules.positive)
    token_validation: float = setting("1m", rules.positive)
    configuration: float = setting("30m", rules.positive)
    absent: float = setting("10s", rules.positive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """`max_entries`: of each kind."""

    max_entries: int = setting(100_000, rules.integer(1))
    ttl: CacheTtl = section(CacheTtl)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """`retention` None: records are kept for ever. `spool`: bytes on disk of what waits for Kafka."""

    retention: float | None = setting("", rules.positive_or_none)
    spool: int = setting("256MiB", rules.size)
    on_full: str = setting("drop", rules.choice("drop", "refuse"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """For topics made from now on; dead letters are kept for ever."""

    partitions: int = setting(4, rules.integer(1, 1024))
    retention: float = setting("7d", rules.positive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumers:
    """`attempts` counts the first delivery too; the n-th wait is min(cap, base·2ⁿ⁻¹)·U(0.5, 1). A dead letter that
    was replayed `max_replays` times is quarantined."""

    attempts: int = setting(3, rules.integer(1, 100))
    backoff_base: float = setting("500ms", rules.positive)
    backoff_cap: float = setting("30s", rules.positive)
    max_replays: int = setting(3, rules.integer(1, 1000))


@dataclass(frozen=True, slots=True, kw_only=True)
class UserConsumer:
    """A consumer group of one's own. `handler` is `package.module:attribute`; `attempts` 0: as in `consumers`."""

    name: str = required(rules.text(r"[A-Za-z0-9][A-Za-z0-9_-]*", "must be letters, digits, _ and -"))
    topics: tuple[str, ...] = required(
        rules.each(rules.text(r"[A-Za-z0-9][A-Za-z0-9._-]*", "must be letters, digits and ._-"), least=1)
    )
    handler: str = required(
        rules.text(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", 'must be "package.module:attribute"')
    )
    attempts: int = setting(0, rules.integer(0, 100))
    concurrency: int = setting(1, rules.integer(1, 10_000))
    batch: int = setting(1, rules.integer(1, 10_000))
    order: str = setting("key", rules.choice("key", "partition"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    level: str = setting("info", rules.choice("debug", "info", "warning", "error", "critical"))
    format: str = setting("auto", rules.choice("auto", "console", "json"))
    requests: bool = setting(False, rules.flag)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """*quota* requests per *window* seconds sustained, *burst* at once."""

    name: str = required(rules.text(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "must be letters, digits and _.-"))
    key: str = required(rules.choice("token", "address", "subject"))
    quota: int = required(rules.integer(1))
    window: int = required(rules.whole_seconds)
    burst: int = required(rules.integer(1))
    fail: str = setting("local", rules.choice("local", "open", "closed"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """`target` is `service:NAME`, `asgi:package.module:app` or a tuple of upstreams `http(s)://host[:port]`.
    `max_body` None: that of the server. `health` is a path that upstreams are asked for; empty: they are not."""

    prefix: str = required(rules.prefix)
    target: str | tuple[str, ...] = required(rules.target)
    auth: str = setting("required", rules.choice("required", "optional", "none"))
    scopes: Mapping[str, str] = setting({}, rules.scopes)
    max_body: int | None = setting("", rules.optional_size)
    balance: str = setting("least_outstanding", rules.choice("least_outstanding", "round_robin"))
    health: str = setting("", rules.text(r"(/[!-\"$-~]*)?", 'must be a path such as "/healthz", or "" for no checks'))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`routes` are the file's own; they are added to the built-in ones, which the gateway has."""

    server: Server = section(Server)
    admin: Admin = section(Admin)
    data: Data = section(Data)
    auth: Auth = section(Auth)
    redis: Redis = section(Redis)
    postgres: Postgres = section(Postgres)
    kafka: Kafka = section(Kafka)
    cors: Cors = section(Cors)
    notifications: Notifications = section(Notifications)
    cache: Cache = section(Cache)
    audit: Audit = section(Audit)
    events: Events = section(Events)
    consumers: Consumers = section(Consumers)
    log: Log = section(Log)
    limits: tuple[Limit, ...] = rows(
        Limit,
        Limit(name="caller", key="token", quota=600, window=60, burst=60),
        Limit(name="address", key="address", quota=3000, window=60, burst=300),
    )
    routes: tuple[Route, ...] = rows(Route)
    consumer: tuple[UserConsumer, ...] = rows(UserConsumer)


def load(path: Path | None, environ: Mapping[str, str], reserved_prefixes: Collection[str] = ()) -> Settings:
    """The settings of the file at *path* (None: no file), overridden by the `WEIR_…` variables of *environ*.

    *reserved_prefixes*: those of the built-in routes, which a file may not define again.
    Raises ConfigError, and nothing else, for whatever is wrong with the file or the variables.
    """
    reader = Reader(Settings, path, environ)
    settings: Settings = reader.read()
    for at, must in _contradictions(settings, reserved_prefixes):
        raise reader.error(at, must)
    base = path.parent if path else Path()
    server = settings.server
    cert, key = ((base / file).absolute() if file else None for file in (server.tls_cert, server.tls_key))
    ca = settings.kafka.tls_ca
    return replace(
        settings,
        kafka=replace(settings.kafka, tls_ca=(base / ca).absolute() if ca else None),
        data=Data(dir=(base / settings.data.dir).absolute()),
        notifications=replace(settings.notifications, templates=(base / settings.notifications.templates).absolute()),
        server=replace(server, tls_cert=cert, tls_key=key),
    )


def _contradictions(settings: Settings, reserved_prefixes: Collection[str]) -> Iterator[tuple[str, str]]:
    """What is wrong between values that are each right: (the key to change, what it must be)."""
    server, cors, consumers = settings.server, settings.cors, settings.consumers
    if server.bind == settings.admin.bind and server.bind.port:
        yield "admin.bind", "must differ from server.bind"
    if server.drain_delay >= server.shutdown_deadline:
        yield "server.drain_delay", "must be shorter than server.shutdown_deadline, which includes it"
    if (server.tls_cert is None) != (server.tls_key is None):
        given, missing = ("tls_cert", "tls_key") if server.tls_cert else ("tls_key", "tls_cert")
        yield f"server.{given}", f"must come with server.{missing}: TLS needs a certificate and its private key"
    if consumers.backoff_cap < consumers.backoff_base:
        yield "consumers.backoff_cap", "must not be shorter than consumers.backoff_base"
    if "*" in cors.origins and (cors.allow_credentials or len(cors.origins) > 1):
        yield "cors.origins", '"*" must stand alone and without cors.allow_credentials; list the exact origins'
    if settings.postgres.dsn and not settings.kafka.bootstrap:
        yield "kafka.bootstrap", f"must be set beside postgres.dsn: {_COMBINATIONS}"
    if settings.kafka.bootstrap and not settings.postgres.dsn:
        yield "postgres.dsn", f"must be set beside kafka.bootstrap: {_COMBINATIONS}"
    yield from _contradictions_of_auth(settings.auth, server.request_timeout)
    yield from _contradictions_of_kafka(settings.kafka)
    yield from _contradictions_of_limits(settings.limits)
    if settings.redis.url:
        yield from _uncountable(settings.limits)
    yield from _contradictions_of_routes(settings.routes, reserved_prefixes)
    yield from _contradictions_of_consumers(settings.consumer)


def _contradictions_of_auth(auth: Auth, patience: float) -> Iterator[tuple[str, str]]:
    if not auth.introspection_url:
        for key in ("introspection_client_id", "introspection_client_secret", "introspection_token"):
            if getattr(auth, key):
                yield f"auth.{key}", "must be empty without auth.introspection_url"
        return
    if bool(auth.introspection_client_id) != bool(auth.introspection_client_secret):
        given, missing = (
            ("client_id", "client_secret") if auth.introspection_client_id else ("client_secret", "client_id")
        )
        yield f"auth.introspection_{given}", f"must come with auth.introspection_{missing}"
    if auth.introspection_client_id and auth.introspection_token:
        yield "auth.introspection_client_id", "must be empty when auth.introspection_token is given: one of them"
    clear = auth.introspection_url.startswith("http:") and not rules.on_loopback(auth.introspection_url)
    if clear and not auth.introspection_allow_http:
        cure = "auth.introspection_allow_http = true sends them in the clear"
        yield "auth.introspection_url", f"must be https://, as tokens go there; {cure}"
    if auth.introspection_timeout > patience / 4:
        yield "auth.introspection_timeout", "must be at most a quarter of server.request_timeout"


def _contradictions_of_kafka(kafka: Kafka) -> Iterator[tuple[str, str]]:
    sasl, tls = kafka.security_protocol.startswith("SASL"), kafka.security_protocol.endswith("SSL")
    for key in ("username", "password"):
        if sasl and not getattr(kafka, key):
            yield f"kafka.{key}", f"must be given with kafka.security_protocol {kafka.security_protocol}"
    if kafka.username and not sasl:
        yield "kafka.username", "must be empty unless kafka.security_protocol is SASL_SSL or SASL_PLAINTEXT"
    if kafka.tls_ca is not None and not tls:
        yield "kafka.tls_ca", "must be empty unless kafka.security_protocol is SSL or SASL_SSL"


def _contradictions_of_limits(limits: tuple[Limit, ...]) -> Iterator[tuple[str, str]]:
    taken: dict[str, int] = {}
    for index, limit in enumerate(limits):
        if taken.setdefault(limit.name, index) != index:
            yield f"limits[{index}].name", f"is the name of limits[{taken[limit.name]}] too; names must differ"
        if limit.quota > limit.window * 1_000_000:
            yield f"limits[{index}].quota", "must be at most one per microsecond of its window"


def _uncountable(limits: tuple[Limit, ...]) -> Iterator[tuple[str, str]]:
    for index, limit in enumerate(limits):
        if limit.burst * limit.window > limit.quota * 200 * 365 * 86_400:
            yield f"limits[{index}].burst", "with redis.url, must not take more than 200 years to come back"


def _contradictions_of_routes(routes: tuple[Route, ...], reserved: Collection[str]) -> Iterator[tuple[str, str]]:
    taken: dict[str, int] = {}
    for index, route in enumerate(routes):
        if route.prefix in reserved:
            yield f"routes[{index}].prefix", "is a built-in route; choose another prefix"
        if taken.setdefault(route.prefix, index) != index:
            yield f"routes[{index}].prefix", f"is the prefix of routes[{taken[route.prefix]}] too; prefixes must differ"
        if route.health and isinstance(route.target, str):
            yield f"routes[{index}].health", "must be empty unless the target is http(s)://…: nothing else is checked"
        if route.scopes and route.auth == "none":
            yield f"routes[{index}].auth", 'must be "required" or "optional" on a route with scopes'


def _contradictions_of_consumers(consumers: tuple[UserConsumer, ...]) -> Iterator[tuple[str, str]]:
    taken: dict[str, int] = {}
    for index, consumer in enumerate(consumers):
        if consumer.name in _BUILT_IN_GROUPS:
            yield f"consumer[{index}].name", "is a built-in consumer; choose another name"
        if taken.setdefault(consumer.name, index) != index:
            yield f"consumer[{index}].name", f"is the name of consumer[{taken[consumer.name]}] too; names must differ"


@dataclass(frozen=True, slots=True)
class Changes:
    """Keys that differ: those a reload (SIGHUP) takes over, and those that need a restart."""

    reload: tuple[str, ...]
    restart: tuple[str, ...]


_RELOADED = ("limits", "routes", "log.level")
_TLS = ("server.tls_cert", "server.tls_key")


def describe_changes(old: Settings, new: Settings) -> Changes:
    """Which keys (`cors.origins`, `limits`, …) differ between *old* and *new*, in the file's order."""
    changed = [at for at in defaults(Settings) if attrgetter(at)(old) != attrgetter(at)(new)]
    # A port that spoke HTTP does not begin to speak TLS, nor the other way round: other files are taken over, no more.
    kept = (old.server.tls_cert is None) == (new.server.tls_cert is None)
    reloaded = [at for at in changed if at.startswith("cors.") or at in _RELOADED or (at in _TLS and kept)]
    return Changes(tuple(reloaded), tuple(at for at in changed if at not in reloaded))
