"""The operator's command, and the whole tree as one declaration.

`python supervisor.py` runs it; `--help` shows the rest. Exit codes: 0, 1 a supervisor gave up, 2 wrong
configuration or usage.
"""

import sys
from importlib.util import find_spec

if sys.version_info < (3, 11) or find_spec("trio") is None:
    print("weir: run `make setup` first, then `make run` or .venv/bin/python supervisor.py", file=sys.stderr)  # noqa: T201
    sys.exit(2)

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import structlog
import trio
from rich.console import Console
from rich.tree import Tree

from actors.authenticator.actor import Authenticator
from actors.authenticator.introspector import Introspector
from actors.cache_manager.actor import CacheManager
from actors.cache_manager.loaders import entity_loader, token_loader
from actors.cache_manager.messages import CONFIGURATION, TOKEN_VALIDATION, USER_PROFILE
from actors.consumers.audit.handler import AuditHandler
from actors.consumers.consumer import Consumer
from actors.consumers.invalidation import CacheInvalidation
from actors.consumers.loading import HandlerError
from actors.consumers.notification.consumer import NotificationConsumer
from actors.consumers.notification.deliveries import Deliveries
from actors.consumers.notification.endpoint import EndpointDeliveries
from actors.consumers.notification.senders import Slots
from actors.consumers.search.handler import SearchHandler
from actors.event_log.actor import EventLogActor
from actors.outbox.actor import OutboxRelay
from actors.publisher.actor import Publisher
from actors.rate_limiter.actor import RateLimiter, SharedRateLimiter
from actors.router.actor import Router
from actors.runtime import Child, DynamicSupervisor, Mailbox, Pool, Supervisor, SupervisorGaveUp
from actors.shared_store.actor import SharedStore
from actors.storage.maintenance import StorageMaintenance
from actors.storage.reader import StorageReader
from actors.storage.scans import StorageScans
from actors.storage.writer import StorageWriter
from backends.ports.engine import EngineUnusable
from backends.ports.events import AUDIT, ENTITY_CHANGED
from backends.redis.errors import RedisUrlError
from composition import values
from composition.apps import admin_app, public_app
from composition.engines import engine_to_look_at, made_engine, made_spool
from composition.listening import Listening, listening
from composition.mail_rules import MailRuleError, mail_rules
from composition.operating import open_operations
from composition.parts import Parts, load_apps, load_handlers
from composition.process import serve
from gateway.admin.commands import commands
from gateway.admin.console import config_option
from gateway.asgi_target import AsgiLifespan, TargetError
from gateway.front_end import FrontEnd
from gateway.ids import new_id
from gateway.logging import configure_logging
from gateway.proxy.actor import Upstream
from gateway.services.audit.service import AuditService
from gateway.services.auth.elsewhere import OAuthElsewhere
from gateway.services.auth.service import OAuth
from gateway.services.configuration.service import Configuration
from gateway.services.openapi import OpenApi
from gateway.services.routes import BUILTIN_ROUTES
from gateway.services.search.service import SearchService
from gateway.services.users.service import Users
from gateway.services.webhooks.service import Webhooks
from gateway.sockets import BindError
from gateway.tls import TlsError
from settings import ConfigError, Settings, load

log = structlog.get_logger("weir")

DEFAULT_CONFIG = Path(__file__).parent / "config.toml"


def tree(parts: Parts, sockets: Listening) -> Supervisor:
    """The whole tree. Started from top to bottom, stopped from bottom to top."""
    settings, metrics, engine = parts.settings, parts.metrics, parts.engine
    admin = partial(partial, admin_app, parts, sockets.admin_bind(settings))
    service: dict[str, Any] = {"new_id": new_id, "now": time.time, "metrics": metrics}
    outgoing: dict[str, Any] = {"metrics": metrics, "policy": values.retry_policy(settings)}
    group: dict[str, Any] = {**outgoing, "trials": parts.trials, "members": engine.members()}
    loaders = {
        USER_PROFILE: entity_loader("user", time.time),
        CONFIGURATION: entity_loader("configuration", time.time),
        TOKEN_VALIDATION: token_loader(time.time, service="oauth" if parts.auth is None else "introspector"),
    }
    return Supervisor("root", children=[
        _child("admin", partial(FrontEnd, "admin", admin(False), sockets.admin, metrics)),
        _child("control", partial(FrontEnd, "control", admin(True), sockets.control, metrics)),
        Supervisor("state", strategy="one_for_one", intensity=None, children=[
            _child("storage", partial(StorageWriter, engine.entities(), metrics), shutdown=20.0),
            _child("storage_reader", partial(StorageReader, engine.entities(), metrics), on_crash="retry_once"),
            _child("storage_scans", partial(StorageScans, engine.entities(), metrics), on_crash="retry_once"),
            _child("event_log", partial(EventLogActor, engine.event_log(), values.topics(settings), metrics),
                   shutdown=20.0),
            _child("storage_maintenance", partial(
                StorageMaintenance, values.housekeeping(engine, settings, parts.audit, parts.audit_key), metrics)),
            _child("publisher", partial(Publisher, parts.events, metrics, spool=parts.spool), shutdown=20.0),
            *_outbox(parts),
            *_redis(parts),
        ]),
        # On the request path nobody gives up: a child that keeps failing stays in capped backoff, and
        # /readyz says so.
        Supervisor("request_path", intensity=None, children=[
            _child("cache_manager", partial(CacheManager, parts.cached, loaders, metrics, second=parts.second,
                                            load_timeout=values.load_timeout(settings)), on_crash="retry_once"),
            _child("rate_limiter", _limiter(parts), on_crash="retry_once"),
            *_introspector(parts),
            _child("authenticator", partial(Authenticator, metrics, time.time,
                                            load_timeout=values.load_timeout(settings) + 1), on_crash="retry_once"),
            Supervisor("services", intensity=None, children=[
                _child("oauth", partial(OAuth if parts.auth is None else OAuthElsewhere, **service)),
                _child("users", partial(Users, **service)),
                _child("configuration", partial(Configuration, **service)),
                _child("search_service", partial(SearchService, parts.search, **service)),
                _child("webhooks", partial(Webhooks, **service, **values.webhooks(settings))),
                _child("audit_service", partial(AuditService, parts.audit, **service)),
                _child("openapi", partial(OpenApi, values.documented(settings), **service)),
            ]),
        ]),
        Supervisor("consumers", intensity=None, children=[
            _child("audit", partial(Consumer, "audit", (AUDIT,), AuditHandler(parts.audit), **group)),
            _child("notification", partial(NotificationConsumer, engine.deliveries(), parts.mail, **group)),
            _child("search", partial(Consumer, "search", (ENTITY_CHANGED,), SearchHandler(parts.search), **group)),
            _child("invalidation", partial(CacheInvalidation, metrics=metrics, broadcast=engine.broadcast())),
            # An actor for each endpoint with something due, `delivery:ENDPOINT`; `deliveries` starts and stops them.
            DynamicSupervisor("endpoints", partial(EndpointDeliveries, engine.deliveries(), values.senders(settings),
                                                   Slots(), **outgoing),
                              mailbox=Mailbox(16), max_children=4096, intensity=None),
            _child("deliveries", partial(Deliveries, engine.deliveries(), policy=outgoing["policy"])),
            # The file's own, `consumer:NAME`.
            *(_child(f"consumer:{own.name}",
                     partial(Consumer, own.name, own.topics, parts.handlers[own.name], options=values.user_options(own),
                             **{**group, "policy": values.retry_policy(settings, own.attempts)}))
              for own in settings.consumer),
        ]),
        Supervisor("routing", intensity=None, children=[
            *(_child(name, partial(AsgiLifespan, app)) for name, app in parts.apps.items()),
            _child("router", partial(Router, parts.routes, metrics), on_crash="retry_once"),
            # An actor for each upstream of a route, `upstream:URL`; a reload starts and stops them.
            DynamicSupervisor("upstreams", Upstream, mailbox=Mailbox(16), max_children=4096, intensity=None),
        ]),
        _child("front_end", partial(FrontEnd, "public", partial(public_app, parts), sockets.public, metrics,
                                    values.server_limits(settings), log_requests=settings.log.requests,
                                    tls=parts.tls, extra=values.extra_headers(settings)), shutdown=20.0),
    ])  # fmt: skip


def _limiter(parts: Parts) -> Callable[[], Any]:
    """On counters of its own, or on those that all instances share."""
    if parts.counting is None:
        return partial(RateLimiter, parts.buckets, parts.metrics)
    return partial(SharedRateLimiter, parts.counting, parts.metrics)


def _outbox(parts: Parts) -> list[Child]:
    """What writes committed on its way to the bus, where that is another system than the database."""
    outbox = parts.engine.outbox()
    if outbox is None:
        return []
    return [_child("outbox", partial(OutboxRelay, outbox, parts.engine.event_log(), parts.metrics))]


def _introspector(parts: Parts) -> list[Child]:
    """Who asks the Auth Service, where it is elsewhere."""
    if parts.auth is None:
        return []
    auth = parts.settings.auth
    asking = partial(
        Introspector, partial(values.auth_service, parts.settings), parts.auth, parts.metrics, time.time,
        audience=auth.introspection_audience, timeout=auth.introspection_timeout,
        concurrency=auth.introspection_concurrency,
    )  # fmt: skip
    return [_child("introspector", asking, on_crash="retry_once")]


def _redis(parts: Parts) -> list[Child]:
    """Who watches it, where there is one."""
    if parts.redis is None:
        return []
    watch = partial(SharedStore, parts.redis.presence, parts.redis.cache, parts.standing, parts.metrics)
    return [_child("redis", watch)]


def _child(id: str, factory: Callable[[], Any], **options: Any) -> Child:
    """`shutdown` (default 5.0) is its share of `shutdown_deadline` beside those of the others: see `budgets.py`."""
    return Child(id, factory, mailbox=Mailbox(4096), **options)


def run(config: Path) -> int:
    """Run the server; its exit code."""
    settings = read_settings(config)
    configure_logging(settings.log.level, settings.log.format, sys.stderr)
    with made_engine(settings) as engine, made_spool(settings) as spool, listening(settings) as sockets:
        parts = Parts(settings, engine, spool)
        try:
            trio.run(serve, tree(parts, sockets), parts, sockets, partial(read_settings, config))
        except SupervisorGaveUp as error:
            log.critical("gave up", problem=str(error))
            return 1
    log.info("stopped")
    return 0


def read_settings(config: Path) -> Settings:
    """Raises ConfigError."""
    return load(config, os.environ, [route.prefix for route in BUILTIN_ROUTES])


# The command line.


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@config_option
@click.pass_context
def weir(context: click.Context) -> None:
    """Run Weir, or with a command look after it."""
    if context.invoked_subcommand is None:
        sys.exit(run(_config(context)))


@weir.command()
@config_option
@click.pass_context
def check(context: click.Context) -> None:
    """Read the settings and say what is wrong with them."""
    path = _config(context)
    settings = read_settings(path)
    values.tls(settings)
    values.redis(settings)
    mail_rules(settings)
    load_apps(settings)
    load_handlers(settings)
    click.echo(f"{path} is fine")


@weir.command("tree")
@config_option
@click.pass_context
def print_tree(context: click.Context) -> None:
    """Print the supervision tree."""
    settings = read_settings(_config(context))
    with engine_to_look_at(settings) as engine:
        declared = tree(Parts(settings, engine), Listening())
    Console(highlight=False).print(_drawn(declared))


def _drawn(node: Supervisor) -> Tree:
    limit = (
        "never gives up" if node.intensity is None else f"gives up after {node.intensity} failures in {node.period:g} s"
    )
    drawn = Tree(f"{node.id}  [dim]{node.strategy}, {limit}[/dim]")
    for child in node.children:
        drawn.add(_drawn(child) if isinstance(child, Supervisor) else f"{child.id}  [dim]{_kind(child)}[/dim]")
    return drawn


def _kind(child: Child | Pool | DynamicSupervisor) -> str:
    return "dynamic, children come and go" if isinstance(child, DynamicSupervisor) else child.restart


def _config(context: click.Context) -> Path:
    return context.find_root().ensure_object(dict).get("config") or DEFAULT_CONFIG


for _command in commands(lambda config: open_operations(read_settings(config)), DEFAULT_CONFIG):
    weir.add_command(_command)


MISTAKES = (
    BindError,
    ConfigError,
    EngineUnusable,
    HandlerError,
    MailRuleError,
    RedisUrlError,
    TargetError,
    TlsError,
)


def main() -> None:
    """Whatever is the operator's mistake ends in one line and exit code 2."""
    try:
        weir(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.UsageError as error:
        click.echo(f"weir: {error.format_message()}", err=True)
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except MISTAKES as error:
        click.echo(f"weir: {' '.join(str(error).split())}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
