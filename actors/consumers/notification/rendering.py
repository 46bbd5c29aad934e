"""Templates of e-mails: checked before there is anything to send, rendered in a sandbox. Pure but for reading the
built-in ones.

A template's first line is the subject, the rest the body. What is wrong with one shows when it is compiled, as far as
it can: syntax, unknown filters, names that are not given. What depends on the event shows when it is rendered.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from actors.consumers.retry import Permanent

GIVEN = ("type", "at", "by", "kind", "id", "version", "entity", "previous", "changed", "name", "email")
"""What a template may use."""


class TemplateError(Exception):
    """What is wrong with a template, in one line."""


class Template:
    """*name* is as rules write it."""

    def __init__(self, name: str, compiled: jinja2.Template) -> None:
        self.name = name
        self._compiled = compiled

    def render(self, values: Mapping[str, Any]) -> tuple[str, str]:
        """The subject and the body. Raises `Permanent`: the same event would meet the same mistake again."""
        try:
            text = self._compiled.render(values)
        except Exception as error:
            raise Permanent(f"template {self.name}: {type(error).__name__}: {error}") from error
        subject, _, body = text.partition("\n")
        return subject, body


class Templates:
    """Compiles templates, in an environment that lets them read what they are given and nothing else."""

    def __init__(self) -> None:
        self._environment = ImmutableSandboxedEnvironment(
            autoescape=False,  # plain text, nothing to escape
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
        )

    def compile(self, name: str, text: str) -> Template:
        """Raises TemplateError."""
        if not text.strip():
            raise TemplateError("is empty; its first line is the subject, the rest the body")
        try:
            tree = self._environment.parse(text)
            others = set(meta.find_referenced_templates(tree))
            unknown = meta.find_undeclared_variables(tree) - {*GIVEN, *self._environment.globals}
            compiled = self._environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"line {error.lineno}: {error.message}") from None
        except RecursionError:
            raise TemplateError("is nested too deeply") from None
        if others:
            raise TemplateError("must stand alone: it cannot include, import or extend another template")
        if unknown:
            raise TemplateError(f"uses {', '.join(sorted(unknown))}, which is not given; given are {', '.join(GIVEN)}")
        return Template(name, compiled)


def built_in_templates() -> dict[str, Template]:
    """Those that come with Weir, by name: one for each type of event of a user."""
    templates = Templates()
    folder = Path(__file__).parent / "templates"
    return {
        path.stem: templates.compile(path.stem, path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.txt"))
    }
