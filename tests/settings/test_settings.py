"""config.toml and WEIR_… variables → settings: what is read, and the one line that says what is wrong."""

import dataclasses
import ipaddress
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings import Bind, ConfigError, Limit, MailRule, Route, Settings, describe_changes, load
from settings_reader import defaults

Load = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load *text* as ./config.toml, so that messages name `config.toml`."""
    monkeypatch.chdir(tmp_path)

    def read(text: str, reserved: tuple[str, ...] = (), **environ: str) -> Settings:
        Path("config.toml").write_text(text, encoding="utf-8")
        return load(Path("config.toml"), environ, reserved)

    return read


def message(load: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        load()
    return str(caught.value)


# -- Values


def test_an_empty_file_is_the_defaults(read: Load, tmp_path: Path) -> None:
    assert read("") == load(None, {})
    assert read("").server.bind == Bind("127.0.0.1", 8000)
    assert read("").data.dir == tmp_path / "var"


def test_the_file_decides_and_the_rest_keeps_its_default(read: Load) -> None:
    settings = read('[server]\nmax_body = "2KiB"\n[cache.ttl]\nabsent = "1.5s"')
    assert settings.server.max_body == 2048
    assert settings.server.request_timeout == 10.0
    assert settings.cache.ttl.absent == 1.5
    assert settings.cache.ttl.user_profile == 300.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1ms", 0.001), ("500ms", 0.5), ("10s", 10.0), ("1.5m", 90.0), ("24h", 86_400.0), ("7d", 604_800.0)],
)
def test_durations_are_seconds(read: Load, text: str, seconds: float) -> None:
    assert read(f'server.request_timeout = "{text}"').server.request_timeout == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("1B", 1), ("64KiB", 65_536), ("1MiB", 1_048_576), ("2GiB", 2_147_483_648)]
)
def test_sizes_are_bytes(read: Load, text: str, count: int) -> None:
    assert read(f'server.max_body = "{text}"').server.max_body == count


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("0.0.0.0:8000", Bind("0.0.0.0", 8000)),
        ("[::1]:8000", Bind("::1", 8000)),
        ("[fe80::1%eth0]:80", Bind("fe80::1%eth0", 80)),
        ("localhost:0", Bind("localhost", 0)),
        ("api_1.internal:65535", Bind("api_1.internal", 65535)),
    ],
)
def test_a_bind_is_host_and_port_and_prints_as_it_was_written(read: Load, text: str, bind: Bind) -> None:
    assert read(f'server.bind = "{text}"').server.bind == bind
    assert str(bind) == text


def test_rules_in_a_file_replace_the_default_ones(read: Load, tmp_path: Path) -> None:
    assert [rule.template for rule in read("").notifications.rules] == ["user.created", "user.updated", "user.deleted"]
    assert read("notifications.rules = []").notifications.rules == ()
    own = read("[notifications]\ntemplates = 'mail'\n" + MAIL_RULE).notifications
    assert own.rules == (MailRule(events=("user.*",), to=("a@b.c",), template="x.txt"),)
    assert own.templates == tmp_path / "mail"


def test_trusted_proxies_are_networks(read: Load) -> None:
    settings = read('server.trusted_proxies = ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]')
    assert settings.server.trusted_proxies == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("192.0.2.7/32"),
        ipaddress.ip_network("fd00::/8"),
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://auth.example/introspect?realm=a&b=c", "https://[2001:db8::1]:8443/i", "http://127.0.0.1:9/i",
        "http://[::1]/i", "http://localhost:9000/oauth/introspect", "https://auth.example",
    ],
)  # fmt: skip
def test_an_auth_service_elsewhere_is_https_or_on_this_machine(read: Load, url: str) -> None:
    assert read(f'auth.introspection_url = "{url}"').auth.introspection_url == url
    allowed = read('[auth]\nintrospection_url = "http://auth/i"\nintrospection_allow_http = true')
    assert allowed.auth.introspection_url == "http://auth/i"


def test_credentials_for_the_auth_service_show_in_no_repr(read: Load) -> None:
    by_secret = 'introspection_client_id = "weir"\nintrospection_client_secret = "hush"'
    for credentials in (by_secret, 'introspection_token = "hush"'):
        settings = read(f'[auth]\nintrospection_url = "https://auth/i"\n{credentials}')
        assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    "origin", ["https://app.example", "http://localhost:3000", "http://[::1]:8080", "capacitor://localhost"]
)
def test_exact_origins_are_taken(read: Load, origin: str) -> None:
    assert read(f'cors.origins = ["{origin}"]').cors.origins == (origin,)


def test_the_smtp_relay_is_a_host_and_a_port(read: Load) -> None:
    assert read('notifications.smtp = "smtp://mail.example:2525"').notifications.smtp == Bind("mail.example", 2525)
    assert read('notifications.smtp = "smtp://[::1]"').notifications.smtp == Bind("::1", 25)
    assert read('notifications.smtp = ""').notifications.smtp is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "rediss://ann:s%40cret@redis.example:6380/2?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://:pw@a:26379,b/main/3",
    ],
)
def test_redis_is_named_by_its_url_and_no_repr_shows_it(read: Load, url: str) -> None:
    settings = read(f'redis.url = "{url}"')
    assert settings.redis.url == url
    assert "redis.example" not in repr(settings)
    assert url not in repr(settings)


def test_limits_in_a_file_replace_the_default_ones(read: Load) -> None:
    assert [limit.name for limit in read("").limits] == ["caller", "address"]
    settings = read('[[limits]]\nname = "tenant"\nkey = "subject"\nquota = 7\nwindow = "1s"\nburst = 1')
    assert settings.limits == (Limit(name="tenant", key="subject", quota=7, window=1, burst=1, fail="local"),)
    assert read("limits = []").limits == ()


def test_the_example_route_of_the_manual(read: Load) -> None:
    settings = read(
        """
        [[routes]]
        prefix = "/orders"
        target = "http://127.0.0.1:9000"
        scopes = { GET = "orders:read", "*" = "orders:write" }
        """,
        ("/users",),
    )
    (route,) = settings.routes
    assert route == Route(
        prefix="/orders",
        target=("http://127.0.0.1:9000",),
        auth="required",
        scopes={"GET": "orders:read", "*": "orders:write"},
    )


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ('"service:users"', "service:users"),
        ('"asgi:shop.api:app"', "asgi:shop.api:app"),
        ('"https://api.internal/"', ("https://api.internal",)),
        ('["http://10.0.0.1:80", "http://[::1]:81"]', ("http://10.0.0.1:80", "http://[::1]:81")),
    ],
)
def test_targets(read: Load, written: str, target: str | tuple[str, ...]) -> None:
    assert read(f'[[routes]]\nprefix = "/x"\ntarget = {written}').routes[0].target == target


@pytest.mark.parametrize("prefix", ["/", "/a", "/a/b.c", "/~me/@v1", "/caf%C3%A9", "/users/archive"])
def test_prefixes(read: Load, prefix: str) -> None:
    route = f'[[routes]]\nprefix = "{prefix}"\ntarget = "service:x"'
    assert read(route, ("/users",)).routes[0].prefix == prefix


def test_data_dir_is_relative_to_the_file_and_not_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/weir.toml").write_text('data.dir = "state"')
    monkeypatch.chdir(tmp_path)
    assert load(Path("etc/weir.toml"), {}).data.dir == tmp_path / "etc/state"
    assert load(Path("etc/weir.toml"), {"WEIR_DATA__DIR": "other"}).data.dir == tmp_path / "etc/other"
    assert load(Path("etc/weir.toml"), {"WEIR_DATA__DIR": "/srv/weir"}).data.dir == Path("/srv/weir")


def test_a_byte_order_mark_is_no_mistake(read: Load) -> None:
    assert read('\ufeff[log]\nlevel = "debug"').log.level == "debug"


@pytest.mark.parametrize("at", ["server", "cache.ttl", "limits", "routes"])
def test_settings_are_frozen_down_to_their_leaves(read: Load, at: str) -> None:
    value: Any = read('[[routes]]\nprefix = "/x"\ntarget = "service:x"\nscopes = { GET = "x" }')
    for name in at.split("."):
        value = getattr(value, name)
    record = value[0] if isinstance(value, tuple) else value
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, None)
    if isinstance(record, Route):
        with pytest.raises(TypeError):
            record.scopes["GET"] = "y"  # type: ignore[index]


# -- The environment


def test_variables_override_the_file(read: Load) -> None:
    settings = read(
        '[server]\nbind = "nonsense"\n[cache.ttl]\nuser_profile = "9m"\nconfiguration = "9m"',
        WEIR_SERVER__BIND="127.0.0.1:8080",
        WEIR_SERVER__MAX_CONNECTIONS="12",
        WEIR_CACHE__TTL__USER_PROFILE="1m",
        WEIR_ADMIN__ALLOW_KILL="true",
        WEIR_AUTH__REALM="123",
        WEIR_CORS__ORIGINS='["https://app.example"]',
        WEIR_LIMITS='[{"name": "n", "key": "token", "quota": 1, "window": "1s", "burst": 1}]',
        WEIR_ROUTES='[{"prefix": "/x", "target": "service:x", "scopes": {"GET": "x:read"}}]',
    )
    assert settings.server.bind == Bind("127.0.0.1", 8080)
    assert settings.server.max_connections == 12
    assert settings.cache.ttl.user_profile == 60.0
    assert settings.cache.ttl.configuration == 540.0
    assert settings.admin.allow_kill is True
    assert settings.auth.realm == "123"
    assert settings.cors.origins == ("https://app.example",)
    assert settings.limits == (Limit(name="n", key="token", quota=1, window=1, burst=1),)
    assert settings.routes == (Route(prefix="/x", target="service:x", scopes={"GET": "x:read"}),)


def test_variables_without_a_double_underscore_are_somebody_elses() -> None:
    assert load(None, {"WEIR_REQUIRE_SERVICES": "1", "WEIR_LIMIT": "x", "PATH": "/bin"}) == load(None, {})


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (
            {"WEIR_SERVER__BIND": "8080"},
            'WEIR_SERVER__BIND = "8080": must be host:port, such as "127.0.0.1:8000", "0.0.0.0:8000" or "[::1]:8000"',
        ),
        ({"WEIR_SERVER__BNID": "x"}, "unknown variable WEIR_SERVER__BNID; did you mean WEIR_SERVER__BIND?"),
        ({"WEIR_server__bind": "x"}, "unknown variable WEIR_server__bind; a key's variable is WEIR_SECTION__KEY"),
        ({"WEIR_A\n__B": "x"}, 'unknown variable WEIR_A\\n__B; a key\'s variable is WEIR_SECTION__KEY'),
        ({"WEIR_SERVER__WORKERS": "two"}, 'WEIR_SERVER__WORKERS = "two": must be a whole number'),
        ({"WEIR_SERVER__WORKERS": "2"}, "WEIR_SERVER__WORKERS = 2: embedded storage is one process; set it to 1"),
        ({"WEIR_ADMIN__ALLOW_KILL": "yes"}, 'WEIR_ADMIN__ALLOW_KILL = "yes": must be true or false'),
        ({"WEIR_ADMIN__ALLOW_KILL": ""}, 'WEIR_ADMIN__ALLOW_KILL = "": must be true or false'),
        (
            {"WEIR_CORS__ORIGINS": "https://app.example"},
            'WEIR_CORS__ORIGINS = "https://app.example": must be a list written as JSON',
        ),
        ({"WEIR_CORS__ORIGINS": "[" * 100_000}, f'WEIR_CORS__ORIGINS = "{"[" * 98}…: must be a list written as JSON'),
        (
            {"WEIR_LIMITS": '[{"name": "n", "key": "token", "quota": 1, "window": "1s", "burst": 0}]'},
            "WEIR_LIMITS[0].burst = 0: must be at least 1",
        ),
        ({"WEIR_LIMITS": '[{"nane": "n"}]'}, "unknown key WEIR_LIMITS[0].nane; did you mean WEIR_LIMITS[0].name?"),
        ({"WEIR_LIMITS": "[[]]"}, "WEIR_LIMITS[0] = []: must be a table"),
        ({"WEIR_SERVER__DRAIN_DELAY": "25s"}, 'WEIR_SERVER__DRAIN_DELAY = "25s": must be shorter than '
         "server.shutdown_deadline, which includes it"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_environment_names_the_variable(environ: Mapping[str, str], line: str) -> None:
    assert message(lambda: load(None, environ)) == f"environment: {line}"


def test_a_variable_below_a_key_that_is_no_section_blames_the_file(read: Load) -> None:
    assert message(lambda: read("server = 5", WEIR_SERVER__BIND="127.0.0.1:80")) == (
        "config.toml: server = 5: must be a table"
    )


# -- Bad files


def test_a_missing_file_is_named_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    assert message(lambda: load(path, {})) == f"{path}: no such file; name an existing one with --config"


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    assert message(lambda: load(tmp_path, {})) == (
        f"{tmp_path}: cannot be read (Is a directory); name a readable file with --config"
    )


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b'[log]\nlevel = "\xe9"')
    assert message(lambda: load(path, {})) == f"{path}: not UTF-8 text (byte 16); save it as UTF-8"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[server]\nbind =\n", "line 2, column 7: Invalid value"),
        ("[server]\nworkers 1", "line 2, column 9: Expected '=' after a key in a key/value pair"),
        ('[log]\nlevel = "info', "line 2, end of file: Unterminated string"),
        ("[log]\n[log]", "line 2, column 5: Cannot declare ('log',) twice"),
        ("x = " + "[" * 100_000, "nested too deeply"),
    ],
)
def test_toml_syntax_errors_name_the_line(read: Load, text: str, line: str) -> None:
    assert message(lambda: read(text)) == f"config.toml: {line}"


# -- Bad keys and values

LIMIT = {"name": '"n"', "key": '"token"', "quota": "1", "window": '"1s"', "burst": "1"}
ROUTE = {"prefix": '"/x"', "target": '"service:x"'}
SIZE = 'must be a size above zero with its unit, such as "512B", "64KiB" or "1MiB"'
DURATION = 'must be a duration with its unit, such as "500ms", "10s", "5m", "1h" or "7d"'
BIND = 'must be host:port, such as "127.0.0.1:8000", "0.0.0.0:8000" or "[::1]:8000"'
ORIGIN = 'must be an exact origin: "scheme://host" or "scheme://host:port", without a path or a slash at the end'
TARGET = 'must be "service:NAME", "asgi:package.module:app" or "http://host:port" (or https) without a path'
SMTP = 'must be "smtp://host:port" without user or password, or "" for .eml files under data.dir/outbox'
ENDPOINT = 'must be "https://host/path" without user, password and fragment, or ""'
REMOTE = '[auth]\nintrospection_url = "https://auth/i"\n'
REDIS = (
    'must be "redis://user:password@host:port/db" (rediss:// with TLS), "unix:///path" or '
    '"redis+sentinel://host:port,host:port/service", or "" for none; a Cluster is not supported'
)
DSN = '"postgresql://user:password@host:port/database", or "" for embedded'
SERVERS = 'must be "host:port" or several of them, separated by commas, or "" for embedded'
COMBINATIONS = (
    "supported are embedded alone, embedded with Redis, PostgreSQL with Kafka, and PostgreSQL with Kafka and Redis"
)
TLS = ": TLS needs a certificate and its private key"


def table(header: str, row: Mapping[str, str], changes: Mapping[str, str | None]) -> str:
    merged = {**row, **changes}
    return f"[[{header}]]\n" + "".join(f"{key} = {value}\n" for key, value in merged.items() if value is not None)


def limit(**changes: str | None) -> str:
    return table("limits", LIMIT, changes)


MAIL_RULE = '[[notifications.rules]]\nevents = ["user.*"]\nto = ["a@b.c"]\ntemplate = "x.txt"\n'
CONSUMER = {"name": '"billing"', "topics": '["orders"]', "handler": '"shop.billing:on_change"'}


def consumer(**changes: str | None) -> str:
    return table("consumer", CONSUMER, changes)


def route(**changes: str | None) -> str:
    return table("routes", ROUTE, changes)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        # unknown keys
        ('[server]\nbnid = "x"', "unknown key server.bnid; did you mean server.bind?"),
        ("[sever]\nworkers = 1", "unknown key sever; did you mean server?"),
        ('bind = "127.0.0.1:80"', "unknown key bind; did you mean server.bind?"),
        ("[admin]\nzzz = 1", "unknown key admin.zzz; known here: bind, allow_kill"),
        ('"a\\nb" = 1', 'unknown key "a\\nb"; known here: server, admin, data, auth, redis, postgres, kafka, cors, '
         "notifications, cache, audit, events, consumers, log, limits, routes, consumer"),
        ('[cache.ttl]\nuser_profil = "1m"', "unknown key cache.ttl.user_profil; did you mean cache.ttl.user_profile?"),
        (limit(brust="1"), "unknown key limits[0].brust; did you mean limits[0].burst?"),
        # kinds
        ("server = 5", "server = 5: must be a table"),
        ("cache.ttl = []", "cache.ttl = []: must be a table"),
        ('[limits]\nname = "x"', 'limits = {"name": "x"}: must be a list of tables, [[limits]]'),
        ("limits = [1]", "limits[0] = 1: must be a table"),
        ("server.max_connections = true", "server.max_connections = true: must be a whole number"),
        ("server.max_connections = 1.5", "server.max_connections = 1.5: must be a whole number"),
        ('server.max_connections = "12"', 'server.max_connections = "12": must be a whole number'),
        ("server.max_connections = 0", "server.max_connections = 0: must be at least 1"),
        ("events.partitions = 2000", "events.partitions = 2000: must be at most 1024"),
        ("admin.allow_kill = 1", "admin.allow_kill = 1: must be true or false"),
        ("data.dir = ''", 'data.dir = "": must name a folder, such as "var"'),
        ("auth.realm = 'a\"b'", r'auth.realm = "a\"b": must be printable ASCII without quotes and backslashes'),
        ("data.dir = 1979-05-27", 'data.dir = "1979-05-27": must name a folder, such as "var"'),
        # addresses
        ("server.bind = 8000", f"server.bind = 8000: {BIND}"),
        ('server.bind = ":8000"', f'server.bind = ":8000": {BIND}'),
        ('server.bind = "127.0.0.1"', f'server.bind = "127.0.0.1": {BIND}'),
        ('server.bind = "::1:8000"', f'server.bind = "::1:8000": {BIND}'),
        ('server.bind = "[127.0.0.1]:8000"', f'server.bind = "[127.0.0.1]:8000": {BIND}'),
        ('server.bind = "127.0.0.256:80"', f'server.bind = "127.0.0.256:80": {BIND}'),
        ('server.bind = "127.0.0.1:65536"', f'server.bind = "127.0.0.1:65536": {BIND}'),
        ('server.bind = "127.0.0.1:80\\n"', f'server.bind = "127.0.0.1:80\\n": {BIND}'),
        ('server.bind = "http://127.0.0.1:80"', f'server.bind = "http://127.0.0.1:80": {BIND}'),
        ('server.bind = "127.0.0.1:8001"', 'admin.bind = "127.0.0.1:8001": must differ from server.bind'),
        ('server.trusted_proxies = "10.0.0.0/8"', 'server.trusted_proxies = "10.0.0.0/8": must be a list'),
        ('server.trusted_proxies = ["10.0.0.0/8", "lb"]', 'server.trusted_proxies[1] = "lb": must be an address or '
         'a network, such as "10.0.0.0/8" or "fd00::/8"'),
        ('server.trusted_proxies = ["10.1.2.3/8"]', 'server.trusted_proxies[0] = "10.1.2.3/8": has bits set behind '
         'its mask; did you mean "10.0.0.0/8"?'),
        # durations and sizes
        ("server.request_timeout = 10", f"server.request_timeout = 10: {DURATION}"),
        ('server.request_timeout = "10"', f'server.request_timeout = "10": {DURATION}'),
        ('server.request_timeout = "10 s"', f'server.request_timeout = "10 s": {DURATION}'),
        ('server.request_timeout = "-1s"', f'server.request_timeout = "-1s": {DURATION}'),
        ('server.request_timeout = "0s"', 'server.request_timeout = "0s": must be above zero'),
        ('server.request_timeout = "99999d"', 'server.request_timeout = "99999d": must be at most "36500d"'),
        ('cors.max_age = "500ms"', 'cors.max_age = "500ms": must be whole seconds'),
        ('server.hsts = "500ms"', 'server.hsts = "500ms": must be whole seconds'),
        ("server.max_body = 1024", f"server.max_body = 1024: {SIZE}"),
        ('server.max_body = "1MB"', f'server.max_body = "1MB": {SIZE}'),
        ('server.max_body = "0B"', f'server.max_body = "0B": {SIZE}'),
        ('server.drain_delay = "30s"', 'server.drain_delay = "30s": must be shorter than server.shutdown_deadline, '
         "which includes it"),
        ('consumers.backoff_base = "1m"', 'consumers.backoff_cap = "30s": must not be shorter than '
         "consumers.backoff_base"),
        ('audit.retention = "0s"', 'audit.retention = "0s": must be above zero'),
        ("audit.retention = 30", f"audit.retention = 30: {DURATION}"),
        # words
        ('audit.on_full = "block"', 'audit.on_full = "block": must be "drop" or "refuse"'),
        ('log.level = "INFO"', 'log.level = "INFO": must be "debug", "info", "warning", "error" or "critical"'),
        ('log.format = "xml"', 'log.format = "xml": must be "auto", "console" or "json"'),
        # CORS
        ('cors.origins = "*"', 'cors.origins = "*": must be a list'),
        ('cors.origins = ["https://a.example/"]', f'cors.origins[0] = "https://a.example/": {ORIGIN}'),
        ('cors.origins = ["https://*.example"]', f'cors.origins[0] = "https://*.example": {ORIGIN}'),
        ('cors.origins = ["app.example"]', f'cors.origins[0] = "app.example": {ORIGIN}'),
        ('cors.origins = ["null"]', f'cors.origins[0] = "null": {ORIGIN}'),
        ('cors.origins = ["https://u:p@a.example"]', f'cors.origins[0] = "https://…@a.example": {ORIGIN}'),
        ('cors.origins = ["https://App.example"]', 'cors.origins[0] = "https://App.example": is not how a browser '
         'sends it; write "https://app.example"'),
        ('cors.origins = ["https://a.example:443"]', 'cors.origins[0] = "https://a.example:443": is not how a '
         'browser sends it; write "https://a.example"'),
        ('cors.origins = ["*"]\ncors.allow_credentials = true', 'cors.origins = ["*"]: "*" must stand alone and '
         "without cors.allow_credentials; list the exact origins"),
        ('cors.origins = ["*", "https://a.example"]', 'cors.origins = ["*", "https://a.example"]: "*" must '
         "stand alone and without cors.allow_credentials; list the exact origins"),
        # notifications
        (MAIL_RULE.replace('to = ["a@b.c"]', ""), "notifications.rules[0].to: must be given"),
        (MAIL_RULE.replace('["a@b.c"]', "[]"), "notifications.rules[0].to = []: must be a list with at least 1 entry"),
        (MAIL_RULE.replace('"x.txt"', '" "'),
         'notifications.rules[0].template = " ": must be text on one line, and not blank'),
        (MAIL_RULE + "chnged = []",
         "unknown key notifications.rules[0].chnged; did you mean notifications.rules[0].changed?"),
        ('notifications.templates = ""', 'notifications.templates = "": must name a folder, such as "var"'),
        ('notifications.smtp = "mail:25"', f'notifications.smtp = "mail:25": {SMTP}'),
        ('notifications.smtp = "smtp://me:pw@mail:25"', f'notifications.smtp = "smtp://…@mail:25": {SMTP}'),
        ('notifications.from_address = "weir"', 'notifications.from_address = "weir": must be like "weir@host"'),
        # later builds
        ("server.workers = 2", "server.workers = 2: embedded storage is one process; set it to 1"),
        ("server.workers = 0", "server.workers = 0: must be at least 1"),
        ('server.tls_cert = "cert.pem"', f'server.tls_cert = "cert.pem": must come with server.tls_key{TLS}'),
        ('server.tls_key = "key.pem"', f'server.tls_key = "key.pem": must come with server.tls_cert{TLS}'),
        ('redis.url = "http://:secret@host"', f'redis.url = "…": {REDIS}'),
        ('redis.url = "redis+cluster://:secret@host"', f'redis.url = "…": {REDIS}'),
        ("redis.url = 6379", f'redis.url = "…": {REDIS}'),
        ('redis.prefix = "a b"', 'redis.prefix = "a b": must be 1 to 64 letters, digits and _.-'),
        ('redis.url = "redis://h"\n[[limits]]\nname = "x"\nkey = "token"\nquota = 1\nwindow = "365d"\nburst = 201',
         "limits[0].burst = 201: with redis.url, must not take more than 200 years to come back"),
        # engines
        ('postgres.dsn = "password=secret"', f'postgres.dsn = "…": must be {DSN}'),
        ('postgres.dsn = "mysql://me:secret@host/weir"', f'postgres.dsn = "…": must be {DSN}'),
        ('postgres.dsn = "postgresql://me:secret@host"', f'postgres.dsn = "…": must name a database: {DSN}'),
        ('postgres.dsn = "postgresql://me:secret@[::1/weir"', f'postgres.dsn = "…": must be {DSN}'),
        ("postgres.dsn = 5432", f'postgres.dsn = "…": must be {DSN}'),
        ('kafka.bootstrap = "host"', f'kafka.bootstrap = "host": {SERVERS}'),
        ('kafka.bootstrap = "a:9092,b"', f'kafka.bootstrap = "a:9092,b": {SERVERS}'),
        ('postgres.dsn = "postgresql://me:secret@host/weir"', f'kafka.bootstrap = "": must be set beside postgres.dsn: '
         f"{COMBINATIONS}"),
        ('kafka.security_protocol = "TLS"', 'kafka.security_protocol = "TLS": must be "PLAINTEXT", "SSL", '
         '"SASL_PLAINTEXT" or "SASL_SSL"'),
        ('kafka.sasl_mechanism = "GSSAPI"', 'kafka.sasl_mechanism = "GSSAPI": must be "PLAIN", "SCRAM-SHA-256" or '
         '"SCRAM-SHA-512"'),
        ('kafka.instance_id = "a b"', 'kafka.instance_id = "a b": must be at most 200 letters, digits and _.-'),
        ('kafka.password = 5', 'kafka.password = "…": must be text on one line'),
        ('kafka.security_protocol = "SASL_SSL"', 'kafka.username = "": must be given with kafka.security_protocol '
         "SASL_SSL"),
        ('[kafka]\nsecurity_protocol = "SASL_SSL"\nusername = "u"', 'kafka.password = "": must be given with '
         "kafka.security_protocol SASL_SSL"),
        ('kafka.username = "u"', 'kafka.username = "u": must be empty unless kafka.security_protocol is SASL_SSL or '
         "SASL_PLAINTEXT"),
        ('kafka.tls_ca = "ca.pem"', 'kafka.tls_ca = "ca.pem": must be empty unless kafka.security_protocol is SSL or '
         "SASL_SSL"),
        ('audit.spool = 5', 'audit.spool = 5: must be a size above zero with its unit, such as "512B", "64KiB" or '
         '"1MiB"'),
        ('kafka.bootstrap = "a:9092,b:9092"', f'postgres.dsn = "": must be set beside kafka.bootstrap: {COMBINATIONS}'),
        ("postgres.pool_size = 1", "postgres.pool_size = 1: must be at least 2"),
        ('postgres.timeout = "0s"', 'postgres.timeout = "0s": must be above zero'),
        ('auth.introspection_url = "auth.example"', f'auth.introspection_url = "auth.example": {ENDPOINT}'),
        ('auth.introspection_url = "https://me:pw@auth/i"', f'auth.introspection_url = "https://…@auth/i": {ENDPOINT}'),
        ('auth.introspection_url = "https://auth/i#x"', f'auth.introspection_url = "https://auth/i#x": {ENDPOINT}'),
        ('auth.introspection_url = "https://a:99999/i"', f'auth.introspection_url = "https://a:99999/i": {ENDPOINT}'),
        ('auth.introspection_url = "http://auth/i"', 'auth.introspection_url = "http://auth/i": must be https://, as '
         "tokens go there; auth.introspection_allow_http = true sends them in the clear"),
        ('auth.introspection_token = "hush"', 'auth.introspection_token = "…": must be empty without '
         "auth.introspection_url"),
        ('auth.introspection_client_id = "weir"', 'auth.introspection_client_id = "weir": must be empty without '
         "auth.introspection_url"),
        ('auth.introspection_token = "hush hush"', 'auth.introspection_token = "…": must be one Bearer token'),
        (REMOTE + 'introspection_client_secret = "hush\\n"', 'auth.introspection_client_secret = "…": must be text on '
         "one line"),
        (REMOTE + 'introspection_client_secret = "hush"', 'auth.introspection_client_secret = "…": must come with '
         "auth.introspection_client_id"),
        (REMOTE + 'introspection_client_id = "weir"', 'auth.introspection_client_id = "weir": must come with '
         "auth.introspection_client_secret"),
        (REMOTE + 'introspection_client_id = "weir"\nintrospection_client_secret = "s"\nintrospection_token = "hush"',
         'auth.introspection_client_id = "weir": must be empty when auth.introspection_token is given: one of them'),
        (REMOTE + 'introspection_timeout = "3s"', 'auth.introspection_timeout = "3s": must be at most a quarter of '
         "server.request_timeout"),
        (REMOTE + "introspection_concurrency = 0", "auth.introspection_concurrency = 0: must be at least 1"),
        # limits
        (limit(burst="0"), "limits[0].burst = 0: must be at least 1"),
        (limit(burst=None), "limits[0].burst: must be given"),
        (limit(quota="0"), "limits[0].quota = 0: must be at least 1"),
        (limit(quota="-5"), "limits[0].quota = -5: must be at least 1"),
        (limit(quota="1_000_001"), "limits[0].quota = 1000001: must be at most one per microsecond of its window"),
        (limit(window='"0s"'), 'limits[0].window = "0s": must be above zero'),
        (limit(window='"1500ms"'), 'limits[0].window = "1500ms": must be whole seconds'),
        (limit(key='"ip"'), 'limits[0].key = "ip": must be "token", "address" or "subject"'),
        (limit(fail='"shut"'), 'limits[0].fail = "shut": must be "local", "open" or "closed"'),
        (limit(name='"a b"'), 'limits[0].name = "a b": must be letters, digits and _.-'),
        (limit() + limit(), 'limits[1].name = "n": is the name of limits[0] too; names must differ'),
        # consumers
        (consumer(name=None), "consumer[0].name: must be given"),
        (consumer(handler='"shop"'), 'consumer[0].handler = "shop": must be "package.module:attribute"'),
        (consumer(topics="[]"), "consumer[0].topics = []: must be a list with at least 1 entry"),
        (consumer(order='"none"'), 'consumer[0].order = "none": must be "key" or "partition"'),
        (consumer(name='"audit"'), 'consumer[0].name = "audit": is a built-in consumer; choose another name'),
        (consumer() * 2, 'consumer[1].name = "billing": is the name of consumer[0] too; names must differ'),
        # routes
        (route(prefix='"x"'), 'routes[0].prefix = "x": must start with "/"'),
        (route(prefix='"/x/"'), 'routes[0].prefix = "/x/": must not end with "/"; write "/x"'),
        (route(prefix='"/a/../b"'), 'routes[0].prefix = "/a/../b": must have no ".", ".." or empty segment'),
        (route(prefix='"/a/./b"'), 'routes[0].prefix = "/a/./b": must have no ".", ".." or empty segment'),
        (route(prefix='"/a//b"'), 'routes[0].prefix = "/a//b": must have no ".", ".." or empty segment'),
        (route(prefix='"/a%2Fb"'), 'routes[0].prefix = "/a%2Fb": is not how paths are compared; write "/a/b"'),
        (route(prefix='"/café"'), 'routes[0].prefix = "/café": is not how paths are compared; write "/caf%C3%A9"'),
        (route(prefix='"/%FF"'), 'routes[0].prefix = "/%FF": must be UTF-8 text'),
        (route(prefix='"/a;b"'), 'routes[0].prefix = "/a;b": must have no backslash, semicolon, question mark, hash '
         "or control character"),
        (route(prefix='"/users"'), 'routes[0].prefix = "/users": is a built-in route; choose another prefix'),
        (route() + route(), 'routes[1].prefix = "/x": is the prefix of routes[0] too; prefixes must differ'),
        (route(target=None), "routes[0].target: must be given"),
        (route(target="[]"), "routes[0].target = []: must be a list with at least 1 entry"),
        (route(target='"users"'), f'routes[0].target = "users": {TARGET}'),
        (route(target='"asgi:module"'), f'routes[0].target = "asgi:module": {TARGET}'),
        (route(target='"http://a/b"'), f'routes[0].target = "http://a/b": {TARGET}'),
        (route(target='["http://a", "ftp://b"]'), f'routes[0].target[1] = "ftp://b": {TARGET}'),
        (route(auth='"maybe"'), 'routes[0].auth = "maybe": must be "required", "optional" or "none"'),
        (route(auth='"none"', scopes='{ GET = "a" }'), 'routes[0].auth = "none": must be "required" or "optional" '
         "on a route with scopes"),
        (route(health='"healthz"'), 'routes[0].health = "healthz": must be a path such as "/healthz", '
         'or "" for no checks'),
        (route(health='"/healthz"'), 'routes[0].health = "/healthz": must be empty unless the target is http(s)://…: '
         "nothing else is checked"),
        (route(balance='"random"'), 'routes[0].balance = "random": must be "least_outstanding" or "round_robin"'),
        (route(scopes='"a"'), 'routes[0].scopes = "a": must be a table, such as '
         '{ GET = "orders:read", "*" = "orders:write" }'),
        (route(scopes='{ get = "a" }'), 'routes[0].scopes.get = "a": must stand under a method in capitals or "*" '
         "(HEAD uses GET's)"),
        (route(scopes='{ HEAD = "a" }'), 'routes[0].scopes.HEAD = "a": must stand under a method in capitals or "*" '
         "(HEAD uses GET's)"),
        (route(scopes='{ "*" = "a b" }'), 'routes[0].scopes."*" = "a b": must be one scope, without spaces, quotes '
         "or backslashes (RFC 6749)"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_file_is_one_line_with_the_cure(read: Load, text: str, line: str) -> None:
    assert message(lambda: read(text, ("/users",))) == f"config.toml: {line}"


def test_two_listeners_may_both_ask_for_any_port(read: Load) -> None:
    settings = read('server.bind = "127.0.0.1:0"\nadmin.bind = "127.0.0.1:0"')
    assert settings.server.bind == settings.admin.bind


@pytest.mark.parametrize("text", ['postgres = "host=h password=hunter2"', 'routes = ["http://me:hunter2@host"]'])
def test_a_password_in_the_wrong_place_is_not_repeated(read: Load, text: str) -> None:
    assert "hunter2" not in message(lambda: read(text))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


GOOD_LIMIT = {"name": "n", "key": "token", "quota": 1, "window": "1s", "burst": 1, "fail": "open"}
GOOD_ROUTE = {"prefix": "/x", "target": "service:x", "auth": "optional", "scopes": {"GET": "x"}}


def settings_or_one_line(variable: str, text: str) -> None:
    line = "environment: "
    try:
        load(None, {variable: text})
    except ConfigError as error:
        line = str(error)
    assert line.startswith("environment: ")
    assert line.isprintable()  # no line break, and no surrogate that would break the terminal


@given(variable=st.sampled_from(["WEIR_" + key.upper().replace(".", "__") for key in defaults(Settings)]), value=VALUES)
def test_whatever_value_a_key_has_the_outcome_is_settings_or_one_line(variable: str, value: object) -> None:
    settings_or_one_line(variable, value if isinstance(value, str) else json.dumps(value))
    settings_or_one_line(variable, json.dumps([value]))


@given(name=st.sampled_from([*GOOD_LIMIT]), value=VALUES)
def test_whatever_a_limit_says_the_outcome_is_settings_or_one_line(name: str, value: object) -> None:
    settings_or_one_line("WEIR_LIMITS", json.dumps([{**GOOD_LIMIT, name: value}]))


@given(name=st.sampled_from([*GOOD_ROUTE]), value=VALUES | st.text().map("/".__add__))
def test_whatever_a_route_says_the_outcome_is_settings_or_one_line(name: str, value: object) -> None:
    settings_or_one_line("WEIR_ROUTES", json.dumps([{**GOOD_ROUTE, name: value}]))


# -- Reload


def test_nothing_changed() -> None:
    changes = describe_changes(load(None, {}), load(None, {}))
    assert (changes.reload, changes.restart) == ((), ())


def test_changes_say_what_a_reload_takes_over_and_what_needs_a_restart(read: Load) -> None:
    old = read("")
    new = read(
        'server.bind = "127.0.0.1:9"\ncors.max_age = "1m"\nlog = { level = "debug", format = "json" }\n'
        + 'cache.ttl.absent = "1s"\n'
        + limit()
        + route()
    )
    changes = describe_changes(old, new)
    assert changes.reload == ("cors.max_age", "log.level", "limits", "routes")
    assert changes.restart == ("server.bind", "cache.ttl.absent", "log.format")


def test_other_tls_files_are_reloaded_and_tls_itself_is_switched_by_a_restart(read: Load) -> None:
    plain = read("")
    one = read('server = { tls_cert = "1.pem", tls_key = "1.key" }')
    two = read('server = { tls_cert = "2.pem", tls_key = "2.key" }')
    files = ("server.tls_cert", "server.tls_key")
    assert (describe_changes(one, two).reload, describe_changes(one, two).restart) == (files, ())
    for old, new in ((plain, one), (one, plain)):
        assert (describe_changes(old, new).reload, describe_changes(old, new).restart) == ((), files)


def test_the_ca_of_kafka_is_found_beside_the_file(read: Load) -> None:
    settings = read('[kafka]\nsecurity_protocol = "SSL"\ntls_ca = "ca.pem"')
    assert settings.kafka.tls_ca is not None
    assert settings.kafka.tls_ca.is_absolute()
