"""From `[[notifications.rules]]` and template files to rules, or the one line that says what is wrong."""

from pathlib import Path

import pytest

from actors.consumers.notification.rules import default_rules
from composition.mail_rules import MailRuleError, mail_rules
from settings import load


def rules_of(tmp_path: Path, *, events='["user.*"]', to='["ops@example.org"]', template="own.txt", changed="[]"):
    config = tmp_path / "config.toml"
    config.write_text(
        f"[[notifications.rules]]\nevents = {events}\nto = {to}\ntemplate = '{template}'\nchanged = {changed}\n"
    )
    return mail_rules(load(config, {}))


def test_without_a_word_in_the_file_the_rules_are_the_default_ones():
    made = mail_rules(load(None, {}))
    assert {rule.events: (rule.to, rule.template.name, rule.changed) for rule in made} == {
        rule.events: (rule.to, rule.template.name, rule.changed) for rule in default_rules()
    }


def test_a_template_is_a_file_beside_the_configuration(tmp_path):
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "own.txt").write_text("\ufeffHello {{ name }}\nBody\n", encoding="utf-8")
    (rule,) = rules_of(tmp_path, template="mail/own.txt", changed='["email"]')
    assert (rule.events, rule.to, rule.changed) == (("user.*",), ("ops@example.org",), ("email",))
    assert rule.template.render({"name": "Ada"}) == ("Hello Ada", "Body\n")


def test_a_template_that_comes_with_weir_is_named(tmp_path):
    (rule,) = rules_of(tmp_path, template="user.created")
    assert rule.template.render({"name": "Ada", "email": "a@b.c"})[0] == "Welcome, Ada"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"events": '["user.*", "usr.created"]'},
         'notifications.rules[0].events[1] = "usr.created": must be one of *, configuration.*, '),
        ({"to": '["entity.mail"]'}, 'notifications.rules[0].to[0] = "entity.mail": must be "entity.email" or an '),
        ({"events": '["configuration.*"]', "to": '["entity.email"]'},
         'notifications.rules[0].to = ["entity.email"]: must name an address: '),
        ({"changed": '["mail"]'}, 'notifications.rules[0].changed[0] = "mail": must be a field of a user: '),
        ({"template": "no.txt"},
         'notifications.rules[0].template = "no.txt": must be a file in /…/ (no such file or directory) or one of '
         "those that come with Weir: user.created, user.deleted, user.updated"),
        ({"template": "."}, 'notifications.rules[0].template = ".": must be a file in /…/ (is a directory) or '),
        ({"template": "bad.txt"}, 'notifications.rules[0].template = "bad.txt": line 2: unexpected end of template'),
        ({"template": "latin.txt"},
         'notifications.rules[0].template = "latin.txt": is not UTF-8 text (byte 3); save it as UTF-8'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_that_names_it(tmp_path, changes, line):
    (tmp_path / "own.txt").write_text("s\nb\n")
    (tmp_path / "bad.txt").write_text("s\n{{ name")
    (tmp_path / "latin.txt").write_bytes(b"Gr\xfc\xdfe\n")
    with pytest.raises(MailRuleError) as caught:
        rules_of(tmp_path, **changes)
    assert str(caught.value).replace(str(tmp_path), "/…/").startswith(line)
    assert "\n" not in str(caught.value)
