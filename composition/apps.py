"""The apps behind the listeners, wired to the actors they ask. Made anew for each incarnation of a listener."""

import time
from collections.abc import Callable
from functools import partial
from typing import cast

from backends.ports.audit_signing import AuditKey
from backends.ports.stores import AuditStore, SearchIndex
from composition import values
from composition.parts import GROUPS, SERVICES, Parts
from gateway.address import TrustedProxies
from gateway.admin.access import AdminToken
from gateway.admin.app import create_app
from gateway.admin.audit_operations import AuditOperations
from gateway.admin.control import Control
from gateway.admin.dead_letter_operations import DeadLetterOperations
from gateway.admin.operations import Lookup, Operations
from gateway.admin.search_operations import SearchOperations
from gateway.admin.token_operations import TokenOperations, elsewhere
from gateway.asgi import GatewayApp, shield_send
from gateway.asgi_types import App
from gateway.front_end import FrontEnd
from gateway.ids import new_id
from gateway.pipeline import Pipeline
from gateway.services.openapi import document
from gateway.targets import Targets
from settings import Settings

REQUEST_PATH = (
    "storage", "storage_reader", "event_log", "publisher", "cache_manager", "rate_limiter", "introspector",
    "authenticator", "router", "front_end", *SERVICES,
)  # fmt: skip
"""The ids without which no request can be answered: /readyz watches them."""

CONSUMING = ("storage", "storage_reader", "event_log", *GROUPS)
"""The ids without which a process that takes no requests is none: /readyz watches them there."""


def public_app(parts: Parts, front_end: FrontEnd) -> App:
    """The request stages, wired to the actors they ask."""
    lookup, settings = front_end.lookup, parts.settings
    pipeline = Pipeline(
        rate_limiter=lookup("rate_limiter"),
        authenticator=lookup("authenticator"),
        router=lookup("router"),
        publisher=lookup("publisher"),
        table=parts.routes,
        targets=targets(parts, lookup),
        policy=parts.policy,
        metrics=parts.metrics,
        realm=settings.auth.realm,
        request_timeout=settings.server.request_timeout,
        overloaded=lambda: parts.events.refusing,
        introspected=parts.auth is not None,
    )
    return GatewayApp(
        pipeline, TrustedProxies(settings.server.trusted_proxies), max_body=settings.server.max_body,
        body_timeout=settings.server.body_timeout, body_rate=settings.server.body_rate,
        write_timeout=settings.server.write_timeout,
        max_in_flight=settings.server.max_in_flight,
    )  # fmt: skip


def admin_app(parts: Parts, bind: str, trusted: bool, listener: FrontEnd) -> App:
    """The operator's app: on the admin listener for the token's holder, on the control socket for its owner."""
    settings = parts.settings
    control = Control(
        listener.system,
        parts.phase,
        REQUEST_PATH if parts.gateway else CONSUMING,
        openapi=partial(document, values.documented(settings)),
        before_scrape=partial(parts.lag.refresh, listener.lookup),
        metrics=parts.metrics,
        engine=parts.engine.health,
    )
    token = AdminToken.load(settings.data.dir / "admin.token")
    parts.audit_key()  # made at the first start, not when it is first asked for
    operate = operations(listener.lookup, settings, parts.audit, parts.search, parts.audit_key, cached=parts.gateway)
    app = create_app(
        control, operate, token,
        bind=bind, allow_kill=settings.admin.allow_kill, trusted=trusted,
    )  # fmt: skip
    return shield_send(cast(App, app), deadline=5.0)


def operations(
    lookup: Lookup,
    settings: Settings,
    audit: AuditStore,
    search: SearchIndex,
    audit_key: Callable[[], AuditKey],
    *,
    cached: bool,
) -> Operations:
    """What an operator can do, over the actors of *lookup*. *cached*: whether a cache manager is among them."""
    tokens = TokenOperations(lookup, time.time, new_id, cached=cached).by_name()
    return Operations(
        {
            **(elsewhere(tokens, settings.auth.introspection_url) if settings.auth.introspection_url else tokens),
            **DeadLetterOperations(lookup, GROUPS, settings.consumers.max_replays).by_name(),
            **SearchOperations(search, lookup).by_name(),
            **AuditOperations(audit, audit_key, time.time).by_name(),
        }
    )


def targets(parts: Parts, lookup: Lookup) -> Targets:
    return Targets({name: lookup(name) for name in SERVICES}, parts.apps, parts.origins)
