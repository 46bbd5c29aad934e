"""The `configuration` service: any JSON value by key."""

import pytest

from backends.ports.entities import Key
from tests.services.fakes import JSON, World, document, header

VALUES = [
    b"null", b"true", b"0", b"-1.50", b"123456789012345678901234567890", b"1.00000000000000000001",
    b'""', b"[]", b'{"a":[1]}'
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
async def test_a_value_comes_back_as_it_was_written(api: World, value: bytes) -> None:
    put = await api.call("configuration", "PUT", "/a.key", body=b" " + value + b"\n", headers=[JSON])
    assert (put.status, put.body, header(put, b"location")) == (201, value, b"/configuration/a.key")
    for _ in range(2):
        read = await api.call("configuration", "GET", "/a.key")
        assert (read.status, read.body, header(read, b"etag")) == (200, value, b'"1"')
    assert api.store.reads == [Key("configuration", "a.key")]


async def test_events_tell_a_null_from_a_deletion(api: World) -> None:
    await api.call("configuration", "PUT", "/k", json=1)
    assert (await api.call("configuration", "PUT", "/k", json=None)).status == 200
    assert (await api.call("configuration", "DELETE", "/k")).status == 204
    assert [
        (type, data["version"], data["entity"], data["previous"]) for type, data in api.events("entity.changed")
    ] == [
        ("configuration.changed", 1, {"key": "k", "value": 1}, None),
        ("configuration.changed", 2, {"key": "k", "value": None}, {"key": "k", "value": 1}),
        ("configuration.deleted", 3, None, {"key": "k", "value": None}),
    ]
    assert api.events("cache.invalidate") == [("cache.invalidate", {"keys": [["configuration", "k"]]})] * 3
    assert [entry[:2] for entry in await api.audit_trail()] == [
        ("configuration.update", "configuration/k"),
        ("configuration.update", "configuration/k"),
        ("configuration.delete", "configuration/k"),
    ]


async def test_a_write_is_seen_at_once_and_a_version_never_comes_back(api: World) -> None:
    await api.call("configuration", "PUT", "/k", json=1)
    assert (await api.call("configuration", "GET", "/k")).body == b"1"
    await api.call("configuration", "DELETE", "/k")
    assert (await api.call("configuration", "GET", "/k")).status == 404
    again = await api.call("configuration", "PUT", "/k", json=2)
    assert (again.status, header(again, b"etag")) == (201, b'"3"')
    assert (await api.call("configuration", "GET", "/k")).body == b"2"


@pytest.mark.parametrize(
    ("name", "tag", "exists", "status"),
    [
        (b"if-match", b'"1"', True, 200),
        (b"if-match", b'"2"', True, 412),
        (b"if-match", b"*", True, 200),
        (b"if-match", b"*", False, 412),
        (b"if-none-match", b"*", True, 412),
        (b"if-none-match", b"*", False, 201),
    ],
)
async def test_preconditions(api: World, name: bytes, tag: bytes, exists: bool, status: int) -> None:
    if exists:
        await api.call("configuration", "PUT", "/k", json=1)
    answer = await api.call("configuration", "PUT", "/k", json=2, headers=[(name, tag)])
    assert answer.status == status


async def test_deleting_another_version_is_refused(api: World) -> None:
    await api.call("configuration", "PUT", "/k", json=1)
    assert (await api.call("configuration", "DELETE", "/k", headers=[(b"if-match", b'"9"')])).status == 412
    assert (await api.call("configuration", "DELETE", "/other")).status == 404


@pytest.mark.parametrize("key", ["a b", "a%2Fb", "é", "x" * 201, "a%00"])
async def test_a_key_that_cannot_be_is_404_to_readers_and_400_to_writers(api: World, key: str) -> None:
    assert (await api.call("configuration", "GET", f"/{key}")).status == 404
    assert (await api.call("configuration", "DELETE", f"/{key}")).status == 404
    assert (await api.call("configuration", "PUT", f"/{key}", json=1)).status == 400
    assert not api.store.entities


async def test_there_is_no_list(api: World) -> None:
    answer = await api.call("configuration", "GET")
    assert answer.status == 404
    assert document(answer)["status"] == 404
