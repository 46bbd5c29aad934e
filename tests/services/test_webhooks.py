"""The `webhooks` service: subscriptions, whose secret is shown once."""

import base64
from typing import Any

import msgspec
import pytest

from actors.consumers.notification.deliveries_of import webhook_of
from actors.consumers.notification.disabling import disable
from backends.ports.entities import Key
from gateway.services.times import rfc3339
from gateway.services.webhooks.model import url_fault
from tests.services.fakes import NOW, World, document

HOOK = {"url": "https://hooks.example/weir?x=1", "events": ["user.*", "configuration.changed", "user.*"]}


async def test_the_secret_is_shown_once(api: World) -> None:
    answer = await api.call("webhooks", "POST", json=HOOK)
    made = document(answer)
    assert answer.status == 201
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert made["events"] == ["user.*", "configuration.changed"]
    read = await api.call("webhooks", "GET", f"/{made['id']}")
    assert document(read) == made
    listed = await api.call("webhooks", "GET")
    assert document(listed) == {"items": [made], "next_cursor": None}
    assert secret.encode() not in b"".join(event.data for event in api.store.events)
    assert (await api.call("webhooks", "DELETE", f"/{made['id']}")).status == 204
    assert (await api.call("webhooks", "GET", f"/{made['id']}")).status == 404
    assert (await api.call("webhooks", "DELETE", f"/{made['id']}")).status == 404
    assert (await api.call("webhooks", "DELETE", "/x")).status == 404
    assert [entry[0] for entry in await api.audit_trail()][:2] == ["webhook.create", "webhook.delete"]


async def test_a_repeated_creation_shows_the_same_secret(api: World) -> None:
    key = [(b"idempotency-key", b"k")]
    first = await api.call("webhooks", "POST", json=HOOK, headers=key)
    assert (await api.call("webhooks", "POST", json=HOOK, headers=key)).body == first.body
    users = await api.call("users", "POST", json={"name": "A", "email": "a@b.c"}, headers=key)
    assert users.status == 201, "a key belongs to one route"


def kept(api: World, id: str) -> Any:
    return msgspec.json.decode(api.store.entities[Key("webhook", id)].body)


async def made(api: World) -> Any:
    return document(await api.call("webhooks", "POST", json=HOOK))


# -- changing and enabling -----------------------------------------------------------------------------------


async def test_a_webhook_is_changed_in_part(api: World) -> None:
    hook = await made(api)
    changes = {"url": "https://other.example/", "events": ["*", "*"]}
    answer = await api.call("webhooks", "PATCH", f"/{hook['id']}", json=changes)
    secret = hook.pop("secret")
    assert answer.status == 200
    assert document(answer) == {**hook, "url": "https://other.example/", "events": ["*"]}
    assert kept(api, hook["id"])["secret"] == secret
    assert ("webhook.update", f"webhook/{hook['id']}", "ok", 200) in await api.audit_trail()


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"state": "paused"}, ["#/state"]),
        ({"url": None}, ["#/url"]),
        ({"url": "http://127.0.0.1/", "events": ["x"]}, ["#/url", "#/events/0"]),
        ({"secret": "mine", "id": "x"}, ["#/secret", "#/id"]),
        ([], ["#"]),
    ],
)
async def test_every_fault_of_a_change_is_named(api: World, body: Any, pointers: list[str]) -> None:
    hook = await made(api)
    answer = await api.call("webhooks", "PATCH", f"/{hook['id']}", json=body)
    assert answer.status == 422
    assert [error["pointer"] for error in document(answer)["errors"]] == pointers


async def test_a_webhook_that_410_disabled_says_so_and_its_owner_enables_it(api: World) -> None:
    hook = await made(api)
    called = webhook_of(api.store.entities[Key("webhook", hook["id"])])
    assert api.store.commit(disable(called, "HTTPStatus: 410", service="weir", at=NOW + 5)) is True
    assert api.store.commit(disable(called, "HTTPStatus: 410", service="weir", at=NOW + 9)) is True
    shown = document(await api.call("webhooks", "GET", f"/{hook['id']}"))
    assert shown["state"] == "disabled"
    assert shown["disabled_at"] == rfc3339(NOW + 5)
    assert shown["disabled_reason"] == "HTTPStatus: 410"
    answer = await api.call("webhooks", "PATCH", f"/{hook['id']}", json={"state": "active"})
    del hook["secret"]
    assert document(answer) == hook
    assert [action for action, *_ in await api.audit_trail()] == [
        *("webhook.create", "webhook.disable", "webhook.update", "webhook.read"),
    ]


async def test_an_owner_may_disable_a_webhook(api: World) -> None:
    hook = await made(api)
    for _ in range(2):
        answer = await api.call("webhooks", "PATCH", f"/{hook['id']}", json={"state": "disabled"})
        assert document(answer)["disabled_at"] == rfc3339(NOW)
        api.time += 60


# -- another secret ------------------------------------------------------------------------------------------


async def test_a_new_secret_is_shown_once_and_the_old_one_signs_for_a_while(api: World) -> None:
    hook = await made(api)
    answer = await api.call("webhooks", "POST", f"/{hook['id']}/secret")
    rotated = document(answer)
    assert answer.status == 200
    assert rotated["secret"] != hook["secret"]
    assert rotated["previous_secret_expires_at"] == rfc3339(NOW + 86_400)
    read = document(await api.call("webhooks", "GET", f"/{hook['id']}"))
    assert read == {name: value for name, value in rotated.items() if name != "secret"}
    webhook = webhook_of(api.store.entities[Key("webhook", hook["id"])])
    assert webhook.secrets(NOW + 86_399) == [rotated["secret"], hook["secret"]]
    assert webhook.secrets(NOW + 86_400) == [rotated["secret"]]
    api.time += 86_400
    assert "previous_secret_expires_at" not in document(await api.call("webhooks", "GET", f"/{hook['id']}"))
    assert ("webhook.rotate", f"webhook/{hook['id']}", "ok", 200) in await api.audit_trail()
    secrets = (rotated["secret"].encode(), hook["secret"].encode())
    assert not any(secret in event.data for secret in secrets for event in api.store.events)


async def test_secrets_that_sign_are_few_and_the_expired_are_forgotten(api: World) -> None:
    hook = await made(api)
    for _ in range(6):
        await api.call("webhooks", "POST", f"/{hook['id']}/secret")
    assert len(webhook_of(api.store.entities[Key("webhook", hook["id"])]).secrets(NOW)) == 4
    api.time += 86_400
    await api.call("webhooks", "POST", f"/{hook['id']}/secret")
    assert len(kept(api, hook["id"])["retired"]) == 1


async def test_a_repeated_rotation_shows_the_same_secret(api: World) -> None:
    hook, other = await made(api), await made(api)
    key = [(b"idempotency-key", b"k")]
    first = await api.call("webhooks", "POST", f"/{hook['id']}/secret", headers=key)
    assert (await api.call("webhooks", "POST", f"/{hook['id']}/secret", headers=key)).body == first.body
    assert document(await api.call("webhooks", "POST", f"/{other['id']}/secret", headers=key))["id"] == other["id"]


@pytest.mark.parametrize("id", ["01970000-0000-7000-8000-00000000ffff", "x"])
async def test_an_absent_webhook_is_neither_changed_nor_rotated(api: World, id: str) -> None:
    assert (await api.call("webhooks", "PATCH", f"/{id}", json={})).status == 404
    assert (await api.call("webhooks", "POST", f"/{id}/secret")).status == 404
    assert (await api.call("webhooks", "GET", f"/{id}/secret")).status == 405
    assert (await api.call("webhooks", "POST", f"/{id}/secrets")).status == 404


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["#/url", "#/events"]),
        ({"url": "https://a.example", "events": []}, ["#/events"]),
        ({"url": "https://a.example", "events": ["user.*", "user.renamed", "x.*"]}, ["#/events/1", "#/events/2"]),
        ({"url": "https://a.example", "events": ["user.*", 1]}, ["#/events/1"]),
        ({"url": "ftp://a.example", "events": ["nope"]}, ["#/url", "#/events/0"]),
        ({"url": "http://127.0.0.1/", "events": ["*"]}, ["#/url"]),
        ({**HOOK, "secret": "mine"}, ["#/secret"]),
    ],
)
async def test_every_fault_is_named(api: World, body: Any, pointers: list[str]) -> None:
    answer = await api.call("webhooks", "POST", json=body)
    assert answer.status == 422
    assert [error["pointer"] for error in document(answer)["errors"]] == pointers


NEVER = [
    "",
    "a.example",
    "//a.example/",
    "ftp://a.example/",
    "javascript:alert(1)",
    "http://",
    "http:///x",
    "http://user@a.example/",
    "http://user:pw@a.example/",
    "http://@a.example/",
    "http://a.example/#f",
    "http://a.example/#",
    "http://a.example:port/",
    "http://a.example:99999/",
    "http://a.example/a b",
    "http://a.example\\@b.example/",
    "http://a.example/\r\nX: y",
    "http://münchen.example/",
    "http://a..b/",
    "http://-a.example/",
    "http://[::1",
    "http://[fe80::1%25eth0]/",
    "http://127.1/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://1.2.3.4.5/",
    "http://0177.0.0.1/",
]
PRIVATE = [
    "http://localhost/",
    "http://LOCALHOST./",
    "http://a.localhost:8000/",
    "http://intranet/",
    "http://127.0.0.1/",
    "http://10.1.2.3/",
    "http://169.254.169.254/latest/",
    "http://100.64.0.1/",
    "http://0.0.0.0/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]:80/",
    "http://[::]/",
    "http://[fe80::1]/",
    "http://[fd00::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
]
PUBLIC = [
    "http://a.example/",
    "HTTPS://A.Example:8443/x?y=z",
    "http://8.8.8.8/",
    "http://[2606:4700::1111]/",
    "http://a_b.example./",
]


@pytest.mark.parametrize("url", NEVER)
@pytest.mark.parametrize("allow", [True, False])
def test_what_is_no_endpoint(url: str, allow: bool) -> None:
    assert url_fault(url, allow_private=allow)


@pytest.mark.parametrize("url", PRIVATE)
def test_private_endpoints_need_leave(url: str) -> None:
    assert url_fault(url, allow_private=False)
    assert url_fault(url, allow_private=True) is None


@pytest.mark.parametrize("url", PUBLIC)
def test_public_endpoints(url: str) -> None:
    assert url_fault(url, allow_private=False) is None
