"""From settings to the values and adapters that actors are made with. One function a value."""

import ssl
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from actors.authenticator.messages import Principal
from actors.authenticator.remote import RemoteAuthService, basic
from actors.cache_manager.codec import Codec
from actors.cache_manager.messages import CONFIGURATION, TOKEN_VALIDATION, USER_PROFILE
from actors.consumers.handler import ConsumerOptions
from actors.consumers.notification.outbox import OutboxSender
from actors.consumers.notification.senders import EmailSender, Senders
from actors.consumers.notification.smtp import SmtpSender, opportunistic_tls
from actors.consumers.notification.webhook import WebhookSender
from actors.consumers.retry import RetryPolicy
from actors.rate_limiter import messages as limiter_messages
from actors.router import messages as router_messages
from actors.storage.maintenance import Job
from backends.ports.audit_signing import AuditKey
from backends.ports.engine import Engine
from backends.ports.entities import Entity
from backends.ports.event_log import Topic
from backends.ports.events import AUDIT, CACHE_INVALIDATE, ENTITY_CHANGED
from backends.ports.stores import AuditStore
from gateway.cors import CorsPolicy
from gateway.http1.connection import ConnectionLimits
from gateway.http1.parser import HeadLimits
from gateway.ids import new_id
from gateway.proxy.limits import ProxyLimits
from gateway.request import Headers
from gateway.server import ServerLimits
from gateway.services.auth.service import OAuth
from gateway.services.routes import BUILTIN_ROUTES, DOCUMENTED
from gateway.services.service import Service
from gateway.tls import server_context
from settings import Settings, UserConsumer

if TYPE_CHECKING:
    from backends.redis.engine import RedisEngine


def limits(settings: Settings) -> tuple[limiter_messages.Limit, ...]:
    return tuple(
        limiter_messages.Limit(limit.name, limit.key, limit.quota, limit.window, limit.burst, limit.fail)
        for limit in settings.limits
    )


CODECS = {USER_PROFILE: Codec(Entity), CONFIGURATION: Codec(Entity), TOKEN_VALIDATION: Codec(Principal)}
"""How what the cache keeps is written where instances share it."""


def redis(settings: Settings) -> "RedisEngine | None":
    """None: no Redis. Raises RedisUrlError."""
    if not settings.redis.url:
        return None
    # Imported where it is used: the client takes a third of a second to load.
    from backends.redis.engine import RedisEngine

    # The embedded database is this process's alone, and so is what is cached of it.
    namespace = new_id() if not settings.postgres.dsn else "shared"
    return RedisEngine(settings.redis.url, settings.redis.prefix, namespace, new_id(), limits(settings))


def auth_service(settings: Settings) -> RemoteAuthService:
    """A client of the Auth Service elsewhere, which `auth.introspection_url` names."""
    auth = settings.auth
    authorization = f"Bearer {auth.introspection_token}" if auth.introspection_token else ""
    if auth.introspection_client_id:
        authorization = basic(auth.introspection_client_id, auth.introspection_client_secret)
    return RemoteAuthService(auth.introspection_url, authorization, connections=auth.introspection_concurrency)


def load_timeout(settings: Settings) -> float:
    """Seconds that a load of the cache may take: a token waits for its turn and then for its answer."""
    return max(5.0, 2 * settings.auth.introspection_timeout + 1)


def documented(settings: Settings) -> Sequence[type[Service]]:
    """The services of the OpenAPI document: no `/oauth` where that is elsewhere."""
    return tuple(service for service in DOCUMENTED if service is not OAuth or not settings.auth.introspection_url)


def routes(settings: Settings) -> tuple[router_messages.Route, ...]:
    own = (
        router_messages.Route(route.prefix, route.target, route.auth, route.scopes, route.max_body, route.balance)
        for route in settings.routes
    )
    return (*BUILTIN_ROUTES, *own)


def proxy_limits(settings: Settings) -> ProxyLimits:
    # Below the request's deadline, so that an answer that does not come is held against the upstream.
    patience = 0.8 * settings.server.request_timeout
    return ProxyLimits(response=patience, write=min(10.0, patience))


def checks(settings: Settings) -> dict[str, str]:
    """Every upstream that a route names, with the path of its active check, "" for none. The first route decides."""
    found: dict[str, str] = {}
    for route in settings.routes:
        for url in () if isinstance(route.target, str) else route.target:
            found[url] = found.get(url) or route.health
    return found


def cors(settings: Settings) -> CorsPolicy:
    cors = settings.cors
    return CorsPolicy(origins=frozenset(cors.origins), allow_credentials=cors.allow_credentials, max_age=cors.max_age)


def topics(settings: Settings) -> Sequence[Topic]:
    events = settings.events
    own = (topic for consumer in settings.consumer for topic in consumer.topics)
    names = dict.fromkeys((AUDIT, ENTITY_CHANGED, CACHE_INVALIDATE, *own))
    return [Topic(name, events.partitions, events.retention) for name in names]


def server_limits(settings: Settings) -> ServerLimits:
    server = settings.server
    return ServerLimits(
        max_connections=server.max_connections,
        max_connections_per_address=server.max_connections_per_address,
        connection=ConnectionLimits(
            keep_alive_timeout=server.keep_alive_timeout,
            header_timeout=server.header_timeout,
            handshake_timeout=server.handshake_timeout,
            body_timeout=server.body_timeout,
            body_rate=server.body_rate,
            write_timeout=server.write_timeout,
            max_body=server.max_body,
            head=HeadLimits(size=server.max_head, fields=server.max_header_fields),
            h2c=server.h2c,
        ),
    )


def tls(settings: Settings) -> ssl.SSLContext | None:
    """None: cleartext. Raises TlsError."""
    cert, key = settings.server.tls_cert, settings.server.tls_key
    return None if cert is None or key is None else server_context(cert, key)


def extra_headers(settings: Settings) -> Headers:
    """What every answer of the public listener carries."""
    server = settings.server
    if server.tls_cert is None or not server.hsts:
        return []
    return [(b"strict-transport-security", b"max-age=%d" % server.hsts)]


def senders(settings: Settings) -> Senders:
    return Senders(WebhookSender(allow_private=settings.notifications.allow_private_endpoints), email_sender(settings))


def webhooks(settings: Settings) -> dict[str, Any]:
    """What the `webhooks` service is made with."""
    notifications = settings.notifications
    return {
        "allow_private_endpoints": notifications.allow_private_endpoints,
        "secret_overlap": notifications.secret_overlap,
    }


def email_sender(settings: Settings) -> EmailSender:
    notifications = settings.notifications
    if notifications.smtp is None:
        return OutboxSender(settings.data.dir / "outbox", sender=notifications.from_address)
    host, port = notifications.smtp
    return SmtpSender(host, port, sender=notifications.from_address, tls=opportunistic_tls())


def housekeeping(
    engine: Engine, settings: Settings, audit: AuditStore, audit_key: Callable[[], AuditKey]
) -> Sequence[Job]:
    entities, event_log, deliveries = engine.entities(), engine.event_log(), engine.deliveries()
    kept = settings.events.retention  # a delivery that is done is of interest as long as its event
    jobs = [
        Job(name="checkpoint", every=1.0, run=engine.checkpoint),
        Job(name="expired", every=60.0, run=lambda: entities.purge_expired(time.time(), 500), until_empty=True),
        Job(name="delivered", every=60.0, run=lambda: deliveries.purge(time.time() - kept, 500), until_empty=True),
        Job(name="retention", every=60.0, run=lambda: event_log.purge(time.time(), 500), until_empty=True),
    ]
    if (audited := settings.audit.retention) is not None:

        async def drop_audits() -> int:
            return await audit.drop_prefix(time.time() - audited, 200, audit_key().sign)

        jobs.append(Job(name="audit_retention", every=60.0, run=drop_audits, until_empty=True))
    return jobs


def retry_policy(settings: Settings, attempts: int = 0) -> RetryPolicy:
    """*attempts* 0: as set for all."""
    consumers = settings.consumers
    return RetryPolicy(attempts=attempts or consumers.attempts, base=consumers.backoff_base, cap=consumers.backoff_cap)


def user_options(consumer: UserConsumer) -> ConsumerOptions:
    order: Literal["key", "partition"] = "key" if consumer.order == "key" else "partition"
    return ConsumerOptions(concurrency=consumer.concurrency, batch=consumer.batch, order=order)
