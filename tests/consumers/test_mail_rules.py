"""Rules for e-mails: which events, to whom, in which words, when what changed; and what is wrong with one."""

from typing import Any

import pytest

from actors.consumers.notification.mail import Mail, MailWriter, mail_of
from actors.consumers.notification.rendering import GIVEN, TemplateError, Templates, built_in_templates
from actors.consumers.notification.rules import Rule, RuleError, changed_fields, checked, default_rules
from actors.consumers.retry import Permanent
from tests.consumers.fakes import change, event

ADA = {"name": "Ada", "email": "ada@example.org", "bio": ""}
OPS = "ops@example.org"


def rule(*events: str, to: tuple[str, ...] = (OPS,), text: str = "s\nb", changed: tuple[str, ...] = ()) -> Rule:
    return Rule(events or ("user.*",), to, Templates().compile("own.txt", text), changed)


def mails(*rules: Rule, type: str = "user.updated", data: Any = None) -> list[Mail]:
    data = data or change("u1", 2, previous={**ADA, "bio": "x"}, **ADA)
    written = MailWriter(rules).deliveries(event("e1", type=type, data=data), "t/0/0", 5.0)
    if written.failure:
        raise written.failure
    return [mail_of(row) for row in written.rows]


# -- whom --------------------------------------------------------------------------------------------------------


def test_a_rule_is_for_its_events_alone() -> None:
    rules = (rule("user.created"), rule("user.deleted", "user.updated", to=("a@example.org",)), rule("configuration.*"))
    assert [mail.to for mail in mails(*rules)] == ["a@example.org"]


def test_the_user_and_fixed_addresses_are_told_each_once() -> None:
    to = ("entity.email", OPS, "ada@example.org")
    assert [mail.to for mail in mails(rule(to=to), rule(to=(OPS,)))] == ["ada@example.org", OPS]


def test_one_address_may_get_the_words_of_several_templates() -> None:
    other = Rule(("user.*",), (OPS,), Templates().compile("other.txt", "other"))
    assert [mail.subject for mail in mails(rule(), other)] == ["s", "other"]


def test_a_user_without_a_usable_address_leaves_the_fixed_ones() -> None:
    data = change("u1", 1, name="Ada", email="a@x, b@y")
    assert [mail.to for mail in mails(rule(to=("entity.email", OPS)), data=data)] == [OPS]


def test_a_deleted_user_is_told_at_the_address_they_had() -> None:
    (mail,) = mails(rule(to=("entity.email",)), type="user.deleted", data=change("u1", 3, previous=ADA))
    assert mail.to == "ada@example.org"


def test_a_configuration_decides_no_recipient() -> None:
    data = {"kind": "configuration", "id": "k", "version": 1, "entity": {"email": "spam@example.org"}}
    both = rule("*", to=("entity.email", OPS))
    assert [mail.to for mail in mails(both, type="configuration.changed", data=data)] == [OPS]


# -- when what changed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "told"), [((), True), (("bio",), True), (("email", "bio"), True), (("name",), False)]
)
def test_a_rule_may_ask_for_a_change_of_some_fields(fields: tuple[str, ...], told: bool) -> None:
    assert bool(mails(rule(changed=fields))) is told


@pytest.mark.parametrize(
    ("previous", "entity", "changed"),
    [
        ({**ADA, "version": 1, "updated_at": "a"}, {**ADA, "version": 2, "updated_at": "b", "bio": "x"}, ["bio"]),
        (None, ADA, ["name", "email", "bio"]),
        (ADA, None, ["name", "email", "bio"]),
        ({"a": 1}, {"b": 1}, ["a", "b"]),
        ([1], {"b": None}, ["b"]),
        ("x", 5, []),
    ],
)
def test_what_changed(previous: Any, entity: Any, changed: list[str]) -> None:
    assert changed_fields(previous, entity) == changed


# -- in which words ------------------------------------------------------------------------------------------------


def test_a_template_is_given_the_event_and_what_it_is_about() -> None:
    text = (
        "{{ type }} of {{ kind }}/{{ id }} {{ version }}\n{{ at.isoformat() }} {{ by }}: {{ changed | join }} "
        "{{ previous.bio }} {{ entity.name }} {{ name }} {{ email }}"
    )
    (mail,) = mails(rule(text=text))
    assert mail.subject == "user.updated of user/u1 2"
    assert mail.body == "1970-01-01T00:00:01+00:00 root: bio x Ada Ada ada@example.org\n"


def test_what_other_kinds_are_about() -> None:
    data = {"kind": "configuration", "id": "limits", "version": 7, "entity": [1, 2], "previous": None}
    text = "{{ name }}{{ email }}\n{{ entity | join('+') }}"
    (mail,) = mails(rule("configuration.*", text=text), type="configuration.changed", data=data)
    assert (mail.subject, mail.body) == ("limits", "1+2\n")


def test_the_names_that_are_given_are_those_that_are_known() -> None:
    text = "s\n" + "".join(f"{{{{ {name} }}}}" for name in GIVEN)
    assert len(mails(rule(text=text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "{{ entity.nickname }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ changed.append('x') }}",
        "{{ name() }}",
        "{% for n in range(10000000) %}{% endfor %}",
    ],
)
def test_a_template_that_cannot_be_rendered_is_permanent_and_named(text: str) -> None:
    with pytest.raises(Permanent, match=r"template own\.txt: "):
        mails(rule(text=text))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty; its first line is the subject, the rest the body"),
        ("s\n\n{{ name", "line 3: unexpected end of template, expected 'end of print statement'."),
        ("s\n{% if %}", "line 2: Expected an expression, got 'end of statement block'"),
        ("s\n{{ name | shout }}", "line 2: No filter named 'shout'."),
        ("{{ nmae }} {{ y }}", f"uses nmae, y, which is not given; given are {', '.join(GIVEN)}"),
        ("{% include 'x' %}", "must stand alone: it cannot include, import or extend another template"),
        ("{% extends name %}", "must stand alone: it cannot include, import or extend another template"),
    ],
)
def test_what_is_wrong_with_a_template_is_said_before_it_is_needed(text: str, fault: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Templates().compile("own.txt", text)
    assert str(caught.value) == fault


@pytest.mark.parametrize("text", ["{% set x = 1 %}{{ x }}", "{% for n in range(3) %}{{ loop.index }}{% endfor %}"])
def test_names_of_its_own_are_no_fault(text: str) -> None:
    Templates().compile("own.txt", text)


# -- what is wrong with a rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "at", "must"),
    [
        (rule("user.*", "usr.*"), "events[1]", "must be one of *, configuration.*, "),
        (rule(to=(OPS, "nobody")), "to[1]", 'must be "entity.email" or an e-mail address'),
        (rule("configuration.*", to=("entity.email",)), "to", "must name an address: "),
        (rule("user.created", changed=("emial",)), "changed[0]", "must be a field of a user: name, email, bio"),
    ],
)
def test_a_rule_that_can_never_do_what_it_says(made: Rule, at: str, must: str) -> None:
    with pytest.raises(RuleError) as caught:
        checked(made)
    assert caught.value.at == at
    assert caught.value.must.startswith(must)


def test_the_rules_that_come_with_weir_are_sound() -> None:
    assert [checked(made).events for made in default_rules()] == [
        ("user.created",),
        ("user.deleted",),
        ("user.updated",),
    ]
    assert all(name == made.template.name for name, made in zip(built_in_templates(), default_rules(), strict=True))


def test_an_e_mail_of_the_default_rules_keeps_the_id_it_always_had() -> None:
    (row,) = MailWriter().deliveries(event("e1", data=change("u1", 1, **ADA)), "t/0/0", 0.0).rows
    assert row.id == "msg_1fcf7a3825a5cef9cd894fd5ace21580"
