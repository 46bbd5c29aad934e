"""Rules for e-mails: which events, to whom, in which words, and only when what changed. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from actors.consumers.notification.deliveries_of import EVENT_TYPES, PATTERNS, matches
from actors.consumers.notification.message import is_address
from actors.consumers.notification.rendering import Template, built_in_templates

ENTITY_EMAIL = "entity.email"
"""Stands for the address of the user that the event is about."""

USER_FIELDS = ("name", "email", "bio")
_KEPT_BY_US = frozenset({"id", "version", "created_at", "updated_at"})


class RuleError(Exception):
    """What is wrong with a rule: `at` names the key inside it (`events[0]`), `must` completes "key = value: …"."""

    def __init__(self, at: str, value: object, must: str) -> None:
        super().__init__(f"{at} = {value!r}: {must}")
        self.at, self.value, self.must = at, value, must


@dataclass(frozen=True, slots=True)
class Rule:
    """Patterns of events (`user.*`); addresses, or ENTITY_EMAIL; `changed`: one of these fields, () for any."""

    events: tuple[str, ...]
    to: tuple[str, ...]
    template: Template
    changed: tuple[str, ...] = ()

    def wants(self, event_type: str) -> bool:
        return any(matches(pattern, event_type) for pattern in self.events)

    def holds_for(self, changed: Iterable[str]) -> bool:
        """Whether it is for a change of the fields *changed*."""
        return not self.changed or not set(self.changed).isdisjoint(changed)


def checked(rule: Rule) -> Rule:
    """*rule*. Raises RuleError for one that could never do what it seems to say."""
    for index, pattern in enumerate(rule.events):
        if pattern not in PATTERNS:
            raise RuleError(f"events[{index}]", pattern, f"must be one of {', '.join(sorted(PATTERNS))}")
    for index, address in enumerate(rule.to):
        if address != ENTITY_EMAIL and not is_address(address):
            raise RuleError(f"to[{index}]", address, f'must be "{ENTITY_EMAIL}" or an e-mail address')
    types = [type for type in EVENT_TYPES if rule.wants(type)]
    if set(rule.to) == {ENTITY_EMAIL} and not any(type.startswith("user.") for type in types):
        raise RuleError("to", rule.to, "must name an address: these events are about no user, who alone has an e-mail")
    if all(type.startswith("user.") for type in types):
        for index, field in enumerate(rule.changed):
            if field not in USER_FIELDS:
                raise RuleError(f"changed[{index}]", field, f"must be a field of a user: {', '.join(USER_FIELDS)}")
    return rule


def default_rules() -> tuple[Rule, ...]:
    """A user is told of what happens to their account, in the words that come with Weir."""
    return tuple(Rule((name,), (ENTITY_EMAIL,), template) for name, template in built_in_templates().items())


def changed_fields(previous: Any, entity: Any) -> list[str]:
    """The names that differ between two documents, in their order. All of them when one is no object: of what was made
    or deleted every field changed."""
    before: dict[str, Any] = previous if isinstance(previous, dict) else {}
    after: dict[str, Any] = entity if isinstance(entity, dict) else {}
    names: Sequence[str] = list(dict.fromkeys((*before, *after)))
    missing = object()
    return [name for name in names if name not in _KEPT_BY_US and before.get(name, missing) != after.get(name, missing)]
