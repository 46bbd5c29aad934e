"""The questions: to the search index and to the audit trail."""

import msgspec
import pytest

from backends.ports.entities import StoreUnavailable
from backends.ports.stores import AuditEntry, AuditFilter, SearchHit
from tests.services.fakes import NOW, World, document, header


async def test_hits_come_in_pages(api: World) -> None:
    api.index.hits = [SearchHit("user", f"u{n}", 9.0 - n, f"<mark>{n}</mark>") for n in range(5)]
    seen, cursor = [], None
    for _ in range(3):
        page = document(
            await api.call(
                "search_service", "GET", query={"q": "x", "limit": 2} | ({"cursor": cursor} if cursor else {})
            )
        )
        seen += page["items"]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == [msgspec.to_builtins(hit) for hit in api.index.hits]
    assert [entry[:2] for entry in await api.audit_trail()] == [("search.query", "search")] * 3


@pytest.mark.parametrize("q", ["", '"', "* OR (", "a\0b", "é" * 1000, "'; DROP TABLE entity"])
async def test_any_question_is_safe(api: World, q: str) -> None:
    answer = await api.call("search_service", "GET", query={"q": q, "type": "user"})
    assert answer.status == 200
    assert api.index.asked == [(q.replace("\0", "\ufffd"), "user", 0, 51)]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("", "q"),
        ("q=a&q=b", "q"),
        ("q=a&limit=x", "limit"),
        ("q=a&cursor=WzEwMDAxXQ", "cursor"),
        ("q=a&cursor=Wy0xXQ", "cursor"),
    ],
)
async def test_a_bad_search_parameter_is_named(api: World, query: str, parameter: str) -> None:
    answer = await api.call("search_service", "GET", query=query)
    assert (answer.status, document(answer)["parameter"]) == (400, parameter)


async def test_an_index_that_is_away_is_503(api: World) -> None:
    api.index.error = StoreUnavailable("away")
    assert (await api.call("search_service", "GET", query="q=a")).status == 503


def entry(n: int, at: float) -> AuditEntry:
    return AuditEntry(
        id=f"e{n}",
        at=at,
        subject="bob",
        action="user.read",
        entity=f"user/{n}",
        outcome="ok",
        request_id="r",
        status=200,
        client="::1",
    )


async def test_records_come_newest_first_in_pages_and_reading_is_audited(api: World) -> None:
    api.audits.entries = [entry(n, NOW + n // 2) for n in range(5)]
    seen, cursor = [], None
    for _ in range(3):
        page = document(
            await api.call("audit_service", "GET", query={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        )
        seen += page["items"]
        cursor = page["next_cursor"]
    assert cursor is None
    assert [item["id"] for item in seen] == ["e4", "e3", "e2", "e1", "e0"]
    assert seen[0] == {
        "id": "e4",
        "at": "2026-02-02T02:40:02.000000Z",
        "subject": "bob",
        "action": "user.read",
        "entity": "user/4",
        "outcome": "ok",
        "request_id": "r",
        "status": 200,
        "client": "::1",
    }
    assert await api.audit_trail() == [("audit.read", "audit", "ok", 200)] * 3


TIMES = [
    ("2026-02-02T02:40:00Z", NOW),
    ("2026-02-02t02:40:00.5z", NOW + 0.5),
    ("2026-02-02T04:40:00%2B02:00", NOW),
    ("2026-02-02T04:40:00+02:00", NOW),
    ("1770000000", NOW),
    ("1770000000.25", NOW + 0.25),
    ("0", 0.0),
]


@pytest.mark.parametrize(("text", "at"), TIMES)
async def test_conditions_reach_the_store(api: World, text: str, at: float) -> None:
    query = f"subject=a&action=user.read&entity=user/1&since={text}&until={text}"
    assert (await api.call("audit_service", "GET", query=query)).status == 200
    assert api.audits.asked == [AuditFilter(subject="a", action="user.read", entity="user/1", since=at, until=at)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-02-02",
        "2026-02-02T02:40:00",
        "2026-02-30T00:00:00Z",
        "2026-02-02T25:00:00Z",
        "1e9",
        "nan",
        "-1",
        "9" * 40,
    ],
)
@pytest.mark.parametrize("parameter", ["since", "until"])
async def test_a_bad_time_is_400_and_named(api: World, parameter: str, text: str) -> None:
    answer = await api.call("audit_service", "GET", query=f"{parameter}={text}")
    assert (answer.status, document(answer)["parameter"]) == (400, parameter)
    assert header(answer, b"content-type") == b"application/problem+json"
    assert await api.audit_trail() == [("audit.read", "audit", "failed", 400)]


@pytest.mark.parametrize("cursor", ["x", "e30", "WzEsMl0", "W10", "%00"])
async def test_a_forged_cursor_is_400(api: World, cursor: str) -> None:
    answer = await api.call("audit_service", "GET", query=f"cursor={cursor}")
    assert (answer.status, document(answer)["parameter"]) == (400, "cursor")
