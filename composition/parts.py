"""What outlives every actor: made once, before the tree, and given to the factories of its children."""

from random import Random

from actors.authenticator.introspector import Standing as AuthStanding
from actors.cache_manager.messages import CONFIGURATION, TOKEN_VALIDATION, USER_PROFILE
from actors.cache_manager.second_tier import SecondTier
from actors.cache_manager.store import KindPolicy, LocalTier
from actors.consumers.handler import Handler
from actors.consumers.loading import HandlerError, load_handler
from actors.consumers.notification.mail import MailWriter
from actors.consumers.trials import Trials
from actors.metrics import Metrics
from actors.publisher.buffer import EventBuffer
from actors.rate_limiter.actor import SharedCounting
from actors.rate_limiter.fallback import Fallback
from actors.rate_limiter.store import Buckets
from actors.router.table import RouteTable, RouteTableRef
from actors.shared_store.standing import Standing
from backends.ports.engine import Engine
from composition import values
from composition.audit_key import AuditKeyFile
from composition.engines import Spooling
from composition.mail_rules import mail_rules
from gateway.admin.control import Phase
from gateway.admin.lag import LagGauge
from gateway.asgi_target import AsgiApp, TargetError, load_app
from gateway.limits import LimitPlan
from gateway.pipeline import Policy
from gateway.proxy.origin import Origins
from gateway.server import TlsRef
from settings import Settings

SERVICES = ("oauth", "users", "configuration", "search_service", "webhooks", "audit_service", "openapi")
"""The ids of the built-in services, which are also the names of their targets."""

GROUPS = ("audit", "notification", "search")
"""The consumer groups."""


class Parts:
    """Adapters, buckets, cached values, buffers, the route table, applications, counters.

    Raises TargetError for a route whose target does not exist, TlsError for a certificate that cannot be used,
    RedisUrlError for a `redis.url` that cannot be read, MailRuleError for a rule or a template,
    HandlerError for a consumer whose handler is none.
    """

    def __init__(self, settings: Settings, engine: Engine, spooling: Spooling | None = None) -> None:
        self.settings = settings
        self.gateway = "gateway" in settings.server.roles
        """Whether this process takes requests."""
        self.engine = engine
        self.spooling = spooling
        self.phase = Phase()
        self.audit, self.search = engine.audit(), engine.search()
        self.audit_key = AuditKeyFile(settings.data.dir)
        self.metrics = metrics = Metrics()
        self.lag = LagGauge(metrics)
        self.restarts = metrics.counter("weir_actor_restarts_total", "Restarts, by actor.", ("actor",))
        self.buckets = Buckets(values.limits(settings))
        ttl, room = settings.cache.ttl, settings.cache.max_entries
        kinds = {
            USER_PROFILE: ttl.user_profile,
            TOKEN_VALIDATION: ttl.token_validation,
            CONFIGURATION: ttl.configuration,
        }
        self.cached = LocalTier(
            {
                kind: KindPolicy(ttl=seconds, negative_ttl=ttl.absent, max_entries=room)
                for kind, seconds in kinds.items()
            },
            Random(),
        )
        elsewhere = settings.auth.introspection_url
        self.auth = AuthStanding(elsewhere.partition("?")[0]) if elsewhere else None
        self.redis = redis = values.redis(settings)
        self.standing = standing = Standing()
        self.counting: SharedCounting | None = None
        self.second: SecondTier | None = None
        if redis is not None:
            self.counting = SharedCounting(redis.limiter, standing, Fallback(self.buckets, values.limits(settings)))
            self.second = SecondTier(redis.cache, standing, values.CODECS)
        self.events = EventBuffer(on_full="refuse" if settings.audit.on_full == "refuse" else "drop")
        self.routes = RouteTableRef(RouteTable(values.routes(settings)))
        self.policy = Policy(LimitPlan(values.limits(settings)), values.cors(settings))
        self.mail = MailWriter(mail_rules(settings))
        self.apps = load_apps(settings)
        self.handlers = load_handlers(settings)
        self.trials = Trials()
        self.origins = Origins(values.proxy_limits(settings), values.checks(settings), metrics=self.metrics)
        self.tls = TlsRef(values.tls(settings))


def load_handlers(settings: Settings) -> dict[str, Handler]:
    """The handlers of the file's own consumers, by name. Raises HandlerError for the first that cannot be."""
    handlers: dict[str, Handler] = {}
    for index, consumer in enumerate(settings.consumer):
        try:
            handlers[consumer.name] = load_handler(consumer.handler)
        except HandlerError as error:
            raise HandlerError(f"consumer[{index}].handler = {error}") from None
    return handlers


def load_apps(settings: Settings) -> dict[str, AsgiApp]:
    """The applications that the routes name. Raises TargetError for the first target that does not exist."""
    apps: dict[str, AsgiApp] = {}
    for index, target in enumerate(route.target for route in settings.routes):
        try:
            if isinstance(target, str) and target.startswith("asgi:"):
                apps[target] = apps.get(target) or load_app(target)
            elif isinstance(target, str) and target.removeprefix("service:") not in SERVICES:
                raise TargetError(f"{target}: there is no such service; there are {', '.join(SERVICES)}")
        except TargetError as error:
            raise TargetError(f"routes[{index}].target = {error}") from None
    return apps
