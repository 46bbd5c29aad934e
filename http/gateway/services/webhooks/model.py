"""A webhook: where events are sent, which ones, and what is wrong with a subscription. Pure."""

import base64
import ipaddress
import re
import secrets
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

import msgspec

from actors.consumers.notification.addresses import is_public
from gateway.problem import FieldError

KIND = "webhook"
EVENT_TYPES = ("user.created", "user.updated", "user.deleted", "configuration.changed", "configuration.deleted")
PATTERNS = frozenset({"*", *EVENT_TYPES, *(f"{name.partition('.')[0]}.*" for name in EVENT_TYPES)})

Url = Annotated[str, msgspec.Meta(min_length=1, max_length=2048, extra_json_schema={"format": "uri"})]
# The enumeration is told, not checked: the refusal of a wrong one names those there are.
Pattern = Annotated[str, msgspec.Meta(extra_json_schema={"enum": sorted(PATTERNS)})]
Patterns = Annotated[
    list[Pattern],
    msgspec.Meta(min_length=1, max_length=20, description="Event types, `user.*`, `configuration.*` or `*`."),
]
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class WebhookInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client sends."""

    url: Url
    events: Patterns


class Webhook(msgspec.Struct, frozen=True):
    """A webhook as clients see it."""

    id: str
    url: str
    events: list[str]
    created_at: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class NewWebhook(msgspec.Struct, frozen=True):
    """A webhook as its creator sees it once, and as the store keeps it: with the secret that signs deliveries."""

    id: str
    url: str
    events: list[str]
    created_at: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    secret: str


class WebhookPage(msgspec.Struct, frozen=True):
    items: list[Webhook]
    next_cursor: str | None


def shown(body: bytes) -> bytes:
    """The stored document without its secret."""
    return msgspec.json.encode(msgspec.json.decode(body, type=Webhook))


def new_secret() -> str:
    """A signing key as Standard Webhooks writes it: `whsec_` and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def rules(webhook: WebhookInput, *, allow_private: bool) -> list[FieldError]:
    """The faults that a schema cannot express."""
    found = []
    fault = url_fault(webhook.url, allow_private=allow_private)
    if fault is not None:
        found.append(FieldError("#/url", fault))
    found.extend(
        FieldError(
            f"#/events/{index}",
            f"{pattern[:60]!r} is neither *, an event type nor its group; there are: {', '.join(sorted(PATTERNS))}",
        )
        for index, pattern in enumerate(webhook.events)
        if pattern not in PATTERNS
    )
    return found


def url_fault(url: str, *, allow_private: bool) -> str | None:
    """Why *url* can be no endpoint, or None. What its name resolves to is for each delivery to check."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "must be a URL of printable ASCII characters, others percent-encoded"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https"):
        return "must be absolute and start with http:// or https://"
    if not host:
        return "has no host"
    if "@" in parts.netloc:
        return "must not contain a user name or password"
    if "#" in url:
        return "must not have a fragment"
    return _host_fault(parts, host, allow_private=allow_private)


def _host_fault(parts: SplitResult, host: str, *, allow_private: bool) -> str | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _name_fault(host.removesuffix("."), allow_private=allow_private)
    if address.version == 6 and ("%" in host or "[" not in parts.netloc):
        return "has an address that is none"
    if not allow_private and not is_public(host):
        return "must not point to a private, loopback or otherwise special address"
    return None


def _name_fault(name: str, *, allow_private: bool) -> str | None:
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "has a host that is neither a name nor an address"
    # Resolvers read 127.1, 0x7f000001 and 2130706433 as addresses; the last label of a name is never a number.
    if re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1]):
        return "has a host that is neither a name nor a dotted address"
    if not allow_private and (labels[-1] == "localhost" or len(labels) == 1):
        return "must not point to this machine or its network"
    return None
