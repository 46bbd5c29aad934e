"""What outlives every actor: made once, before the tree, and given to the factories of its children."""

from random import Random

from actors.cache_manager.messages import CONFIGURATION, TOKEN_VALIDATION, USER_PROFILE
from actors.cache_manager.store import KindPolicy, LocalTier
from actors.metrics import Metrics
from actors.publisher.buffer import EventBuffer
from actors.rate_limiter.store import Buckets
from actors.router.table import RouteTable, RouteTableRef
from backends.ports.engine import Engine
from composition import values
from gateway.admin.control import Phase
from gateway.admin.lag import LagGauge
from gateway.asgi_target import load_app
from gateway.limits import LimitPlan
from gateway.pipeline import Policy
from gateway.proxy.origin import Origins
from settings import Settings


class Parts:
    """Adapters, buckets, cached values, buffers, the route table, applications, counters.

    Raises TargetError for a route whose target does not exist.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self.phase = Phase()
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
        self.events = EventBuffer(on_full="refuse" if settings.audit.on_full == "refuse" else "drop")
        self.routes = RouteTableRef(RouteTable(values.routes(settings)))
        self.policy = Policy(LimitPlan(values.limits(settings)), values.cors(settings))
        targets = (route.target for route in settings.routes if isinstance(route.target, str))
        self.apps = {name: load_app(name) for name in dict.fromkeys(targets) if name.startswith("asgi:")}
        self.origins = Origins(values.proxy_limits(settings), values.checks(settings))
