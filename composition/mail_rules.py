"""The rules for e-mails, from the settings and the template files they name."""

import json
from pathlib import Path

from actors.consumers.notification.rendering import Template, TemplateError, Templates, built_in_templates
from actors.consumers.notification.rules import Rule, RuleError, checked
from settings import MailRule, Settings


class MailRuleError(Exception):
    """One line: the rule, its key, the value and the cure. The command ends with code 2."""


def mail_rules(settings: Settings) -> tuple[Rule, ...]:
    """Raises MailRuleError for the first rule, or template, that cannot be used."""
    return tuple(
        _rule(f"notifications.rules[{index}]", row, settings.notifications.templates)
        for index, row in enumerate(settings.notifications.rules)
    )


def _rule(at: str, row: MailRule, folder: Path) -> Rule:
    try:
        return checked(Rule(row.events, row.to, _template(row.template, folder), row.changed))
    except TemplateError as error:
        raise MailRuleError(f"{at}.template = {json.dumps(row.template)}: {error}") from None
    except RuleError as error:
        raise MailRuleError(f"{at}.{error.at} = {json.dumps(error.value)}: {error.must}") from None


def _template(name: str, folder: Path) -> Template:
    built_in = built_in_templates()
    if name in built_in:
        return built_in[name]
    try:
        # "-sig": a byte order mark is no part of a subject.
        text = (folder / name).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TemplateError(f"is not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else str(error)
        known = ", ".join(built_in)
        raise TemplateError(
            f"must be a file in {folder} ({reason}) or one of those that come with Weir: {known}"
        ) from None
    return Templates().compile(name, text)
