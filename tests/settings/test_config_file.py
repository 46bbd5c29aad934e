"""The config.toml of the checkout: it runs as it is, and shows every setting at its default."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from settings import Limit, MailRule, Route, Settings, UserConsumer, load
from settings_reader import defaults

CONFIG = Path(__file__).parents[2] / "config.toml"


def test_it_is_the_defaults(monkeypatch) -> None:
    monkeypatch.chdir(CONFIG.parent)
    assert load(CONFIG, {}) == load(None, {})


def test_every_key_appears_in_it_at_its_default() -> None:
    tree = tomllib.loads(CONFIG.read_text())
    for key, default in defaults(Settings).items():
        if key in ("limits", "routes", "notifications.rules", "consumer"):
            continue
        value = tree
        for name in key.split("."):
            value = value[name]
        assert value == default, key
    assert all(set(row) == {field.name for field in fields(Limit)} for row in tree["limits"])


def test_every_key_has_a_comment() -> None:
    sections = CONFIG.read_text().partition('[[limits]]\nname = "address"')[0]
    for line in re.findall(r"(?m)^\w+ = .*", sections):
        assert re.search(r"\S +# \S", line), line


def test_its_example_route_is_a_route_once_uncommented(tmp_path: Path) -> None:
    example = CONFIG.read_text().partition("# [[routes]]\n")[2].partition("\n\n")[0]
    path = tmp_path / "config.toml"
    path.write_text("[[routes]]\n" + re.sub(r"(?m)^# ", "", example))
    (route,) = load(path, {}).routes
    assert route == Route(
        prefix="/orders",
        target=("http://127.0.0.1:9000",),
        auth="required",
        scopes={"GET": "orders:read", "*": "orders:write"},
        max_body=4 * 1024 * 1024,
        health="/healthz",
    )
    assert all(re.search(rf"(?m)^# {field.name} = ", CONFIG.read_text()) for field in fields(Route))


def test_its_example_rule_is_a_rule_once_uncommented(tmp_path: Path) -> None:
    example = CONFIG.read_text().partition("# [[notifications.rules]]\n")[2].partition("\n\n")[0]
    path = tmp_path / "config.toml"
    path.write_text("[[notifications.rules]]\n" + re.sub(r"(?m)^# ", "", example))
    (rule,) = load(path, {}).notifications.rules
    assert rule == MailRule(
        events=("user.updated",),
        to=("entity.email", "security@example.org"),
        template="mail/address-changed.txt",
        changed=("email",),
    )
    assert all(re.search(rf"(?m)^# {field.name} = ", example) for field in fields(MailRule))


def test_its_example_consumer_is_a_consumer_once_uncommented(tmp_path: Path) -> None:
    example = CONFIG.read_text().partition("# [[consumer]]\n")[2]
    path = tmp_path / "config.toml"
    path.write_text("[[consumer]]\n" + re.sub(r"(?m)^# ", "", example))
    (consumer,) = load(path, {}).consumer
    assert consumer == UserConsumer(
        name="billing", topics=("entity.changed",), handler="shop.billing:on_change", attempts=3, concurrency=16
    )
    assert all(re.search(rf"(?m)^# {field.name} = ", example) for field in fields(UserConsumer))
