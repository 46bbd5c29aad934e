"""The routes of the built-in services. Data; pure."""

from actors.router.messages import Route
from gateway.services.audit.service import AuditService
from gateway.services.auth.service import OAuth
from gateway.services.configuration.service import Configuration
from gateway.services.openapi import OpenApi
from gateway.services.search.service import SearchService
from gateway.services.service import Service
from gateway.services.users.service import Users
from gateway.services.webhooks.service import Webhooks

DOCUMENTED: tuple[type[Service], ...] = (OAuth, Users, Configuration, SearchService, Webhooks, AuditService)
"""The services of the OpenAPI document, in its order."""

BUILTIN_ROUTES: tuple[Route, ...] = (
    # Clients authenticate at the Auth Service itself, with their credentials.
    Route(OAuth.prefix, "service:oauth", auth="none"),
    Route(Users.prefix, "service:users", scopes={"GET": "users:read", "*": "users:write"}),
    Route(
        Configuration.prefix,
        "service:configuration",
        scopes={"GET": "configuration:read", "*": "configuration:write"},
    ),
    Route(SearchService.prefix, "service:search_service", scopes={"*": "search:read"}),
    Route(Webhooks.prefix, "service:webhooks", scopes={"*": "webhooks:write"}),
    Route(AuditService.prefix, "service:audit_service", scopes={"*": "audit:read"}),
    Route(OpenApi.prefix, "service:openapi", auth="none"),
)
