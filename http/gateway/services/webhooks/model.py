"""A webhook: where events are sent, which ones, and what is wrong with a subscription. Pure."""

import base64
import ipaddress
import re
import secrets
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from actors.consumers.notification.addresses import is_public
from actors.consumers.notification.deliveries_of import ACTIVE, DISABLED, PATTERNS, Retired
from gateway.problem import FieldError
from gateway.services.times import rfc3339

KIND = "webhook"
SECRETS = 4
"""That sign at once, at most: the current one and those it replaced."""

Url = Annotated[str, msgspec.Meta(min_length=1, max_length=2048, extra_json_schema={"format": "uri"})]
# The enumeration is told, not checked: the refusal of a wrong one names those there are.
Pattern = Annotated[str, msgspec.Meta(extra_json_schema={"enum": sorted(PATTERNS)})]
Patterns = Annotated[
    list[Pattern],
    msgspec.Meta(min_length=1, max_length=20, description="Event types, `user.*`, `configuration.*` or `*`."),
]
State = Literal["active", "disabled"]
Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class WebhookInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client sends."""

    url: Url
    events: Patterns


class WebhookPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON Merge Patch (RFC 7396). `state` `active` enables a disabled webhook again."""

    url: Url | msgspec.UnsetType = msgspec.UNSET
    events: Patterns | msgspec.UnsetType = msgspec.UNSET
    state: State | msgspec.UnsetType = msgspec.UNSET


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as clients see it. A disabled one gets nothing; `disabled_at` and `disabled_reason` say since when,
    and why. `previous_secret_expires_at`: until then the secret before the current one signs as well."""

    id: str
    url: str
    events: list[str]
    created_at: Time
    state: State
    disabled_at: Time | msgspec.UnsetType = msgspec.UNSET
    disabled_reason: str | msgspec.UnsetType = msgspec.UNSET
    previous_secret_expires_at: Time | msgspec.UnsetType = msgspec.UNSET


class NewWebhook(Webhook, frozen=True, kw_only=True):
    """A webhook as its owner sees it once: with the secret that signs deliveries."""

    secret: str


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as the store keeps it. Times are Unix seconds, but for `created_at`; `retired`: the newest first."""

    id: str
    url: str
    events: list[str]
    created_at: str
    secret: str
    state: str = ACTIVE
    disabled_at: float = 0.0
    disabled_reason: str = ""
    retired: tuple[Retired, ...] = ()


class WebhookPage(msgspec.Struct, frozen=True):
    items: list[Webhook]
    next_cursor: str | None


def stored(body: bytes) -> Stored:
    return msgspec.json.decode(body, type=Stored)


def shown(webhook: Stored, now: float) -> bytes:
    """The document for clients at *now* (Unix seconds), without any secret."""
    return msgspec.json.encode(Webhook(**_members(webhook, now)))


def shown_once(webhook: Stored, now: float) -> bytes:
    """The same with its secret."""
    return msgspec.json.encode(NewWebhook(**_members(webhook, now), secret=webhook.secret))


def _members(webhook: Stored, now: float) -> dict[str, Any]:
    members: dict[str, Any] = {name: getattr(webhook, name) for name in ("id", "url", "events", "created_at", "state")}
    if webhook.state == DISABLED:
        members |= {"disabled_at": rfc3339(webhook.disabled_at), "disabled_reason": webhook.disabled_reason}
    if webhook.retired and webhook.retired[0].until > now:
        members["previous_secret_expires_at"] = rfc3339(webhook.retired[0].until)
    return members


def new_secret() -> str:
    """A signing key as Standard Webhooks writes it: `whsec_` and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def rules(webhook: WebhookInput | WebhookPatch, *, allow_private: bool) -> list[FieldError]:
    """The faults that a schema cannot express, of the members that are given."""
    found = []
    if isinstance(webhook.url, str) and (fault := url_fault(webhook.url, allow_private=allow_private)) is not None:
        found.append(FieldError("#/url", fault))
    events = webhook.events if isinstance(webhook.events, list) else []
    found.extend(
        FieldError(
            f"#/events/{index}",
            f"{pattern[:60]!r} is neither *, an event type nor its group; there are: {', '.join(sorted(PATTERNS))}",
        )
        for index, pattern in enumerate(events)
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
