"""What clients send to `users`: every fault is named, and nothing faulty is stored."""

from typing import Any

import pytest

from tests.services.fakes import JSON, World, document

ADA = {"name": "Ada", "email": "ada@example.org", "bio": "Numbers"}


async def created(api: World, **changes: Any) -> dict[str, Any]:
    answer = await api.call("users", "POST", json=ADA | changes)
    assert answer.status == 201, answer.body
    user: dict[str, Any] = document(answer)
    return user


FAULTS = [
    ({}, ["#/name", "#/email"]),
    ({**ADA, "name": ""}, ["#/name"]),
    ({**ADA, "name": " \t"}, ["#/name"]),
    ({**ADA, "name": "a\nb"}, ["#/name"]),
    ({**ADA, "name": "x" * 201}, ["#/name"]),
    ({**ADA, "name": None, "bio": 1, "email": []}, ["#/name", "#/email", "#/bio"]),
    ({**ADA, "bio": "x" * 2001}, ["#/bio"]),
    ({**ADA, "bio": "\0"}, ["#/bio"]),
    ({**ADA, "id": "x", "a/b~": 1}, ["#/id", "#/a~1b~0"]),
    ({**ADA, "name": " ", "email": "nope"}, ["#/name", "#/email"]),
    *[
        ({**ADA, "email": email}, ["#/email"])
        for email in (
            "a@",
            "@b.c",
            "a@@b.c",
            "a@b@c",
            "a b@c.d",
            "a@b c",
            "a@b.c\n",
            "a\r\nBcc: x@y.z",
            "a@b..c",
            "<a@b.c>",
            "a" * 250 + "@b.cd",
        )
    ],
    ([], ["#"]),
    (None, ["#"]),
    ("x", ["#"]),
]


@pytest.mark.parametrize(("body", "pointers"), FAULTS)
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_every_fault_is_named(api: World, method: str, body: Any, pointers: list[str]) -> None:
    user = await created(api)
    answer = await api.call("users", method, "" if method == "POST" else f"/{user['id']}", json=body)
    assert answer.status == 422
    assert [error["pointer"] for error in document(answer)["errors"]] == pointers
    assert all(error["detail"] for error in document(answer)["errors"])
    assert len(api.store.entities) == 1


@pytest.mark.parametrize("email", ["a@b", "a+b@c.example", "o'neil@x.y", "ü@münchen.example"])
async def test_plausible_addresses_are_taken_as_they_are(api: World, email: str) -> None:
    assert (await created(api, email=email))["email"] == email


@pytest.mark.parametrize(
    ("patch", "pointers"),
    [
        ({"name": None}, ["#/name"]),
        ({"name": " "}, ["#/name"]),
        ({"email": {"x": 1}}, ["#/email"]),
        ({"version": 7, "email": 3}, ["#/email", "#/version"]),
        ([], ["#"]),
        (None, ["#"]),
    ],
)
async def test_a_patch_must_leave_a_user(api: World, patch: Any, pointers: list[str]) -> None:
    user = await created(api)
    answer = await api.call("users", "PATCH", f"/{user['id']}", json=patch)
    assert answer.status == 422
    assert [error["pointer"] for error in document(answer)["errors"]] == pointers


async def test_a_null_in_a_patch_removes_the_member(api: World) -> None:
    user = await created(api)
    merge = [(b"content-type", b"Application/Merge-Patch+JSON")]
    answer = await api.call("users", "PATCH", f"/{user['id']}", body=b'{"bio":null}', headers=merge)
    assert (answer.status, document(answer)["bio"]) == (200, "")


MALFORMED = [b"", b"{", b'{"name": "\xff"}', b"[" * 100_000, b"{}x", b"NaN", b"\xef\xbb\xbf{}", b'{"name": 1e999}']


@pytest.mark.parametrize("body", MALFORMED)
async def test_what_is_no_json_is_400(api: World, body: bytes) -> None:
    answer = await api.call("users", "POST", body=body, headers=[JSON])
    assert answer.status == 400
    assert document(answer)["detail"]


@pytest.mark.parametrize(
    ("type", "status"),
    [
        (b"application/json; charset=UTF-8", 201),
        (b'application/json;charset="utf-8"', 201),
        (b"application/json; charset=latin-1", 415),
        (b"text/plain", 415),
        (b"application/merge-patch+json", 415),
        (b"", 415),
        (None, 201),
    ],
)
async def test_media_types(api: World, type: bytes | None, status: int) -> None:
    body = b'{"name":"Ada","email":"a@b.c"}'
    answer = await api.call("users", "POST", body=body, headers=[] if type is None else [(b"content-type", type)])
    assert answer.status == status


@pytest.mark.parametrize(("coding", "status"), [(b"identity", 201), (b"gzip", 415), (b"Br", 415)])
async def test_a_compressed_body_is_refused_by_its_coding_and_not_as_broken_json(
    api: World, coding: bytes, status: int
) -> None:
    headers = [JSON, (b"content-encoding", coding)]
    answer = await api.call("users", "POST", body=b'{"name":"Ada","email":"a@b.c"}', headers=headers)
    assert answer.status == status
    assert (b"accept-encoding", b"identity") in answer.headers or status == 201
