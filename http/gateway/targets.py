"""From a route to what answers it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import cast

from actors.router.messages import Resolved, Route
from gateway.asgi_target import AsgiApp, AsgiTarget, TargetError
from gateway.pipeline import Asker, Target
from gateway.proxy.balance import Balance
from gateway.proxy.origin import Origins
from gateway.proxy.target import UpstreamTarget
from gateway.request import Request, Response
from gateway.services.messages import ServiceRequest


class ServiceTarget:
    """The target kind `service:NAME`: an actor of this tree. It audits its requests itself."""

    audited = False
    streams = False

    def __init__(self, service: Asker) -> None:
        self._service = service

    async def handle(self, request: Request, resolved: Resolved) -> Response:
        """Raises what the ask raises. HEAD is asked as GET; the server leaves the body out."""
        asked = replace(request, method="GET") if request.method == "HEAD" else request
        response: Response = await self._service.ask(ServiceRequest(asked, resolved.rest))
        return response


class Targets:
    """Every target that routes may name: *services* by name, *apps* by `asgi:package.module:app`, any upstream.

    Upstreams are made on first use, so a reload may bring new ones; services and apps are part of the tree
    and do not change while it runs.
    """

    def __init__(
        self,
        services: Mapping[str, Asker],
        apps: Mapping[str, AsgiApp],
        origins: Origins,
    ) -> None:
        self._origins = origins
        self._fixed: dict[str, Target] = {f"service:{name}": ServiceTarget(ref) for name, ref in services.items()}
        self._fixed.update({name: AsgiTarget(app) for name, app in apps.items()})
        self._upstreams: dict[tuple[tuple[str, ...], str], UpstreamTarget] = {}

    def check(self, routes: Iterable[Route]) -> None:
        """Raise TargetError for the first route whose target does not exist. Call it before a reload."""
        for route in routes:
            if isinstance(route.target, str) and route.target not in self._fixed:
                if route.target.startswith("asgi:"):
                    raise TargetError(f"route {route.prefix}: {route.target} is a new application: restart to have it")
                known = ", ".join(sorted(self._fixed))
                raise TargetError(f"route {route.prefix}: there is no target {route.target} (known: {known})")

    def of(self, route: Route) -> Target:
        """The target of *route*. Raises LookupError for one that `check` would not have let through."""
        target = route.target
        if isinstance(target, str):
            return self._fixed[target]
        key = (target, route.balance)
        upstream = self._upstreams.get(key)
        if upstream is None:
            origins = [self._origins.of(url) for url in target]
            upstream = self._upstreams[key] = UpstreamTarget(origins, cast(Balance, route.balance))
        return upstream
