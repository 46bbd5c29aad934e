"""What every audit store promises."""

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.ports.stores import AuditEntry, AuditFilter
from tests.backends.conftest import Backend, OpenBackend


def entry(id: str, at: float, subject: str = "ada", action: str = "user.read", entity: str = "user/1") -> AuditEntry:
    return AuditEntry(
        id=id,
        at=at,
        subject=subject,
        action=action,
        entity=entity,
        outcome="ok",
        request_id=f"r-{id}",
        status=200,
        client="203.0.113.9",
    )


EVERYTHING = AuditFilter()


async def ids(backend: Backend, where: AuditFilter = EVERYTHING, limit: int = 50) -> list[str]:
    return [found.id for found in await backend.audit.query(where, None, limit)]


async def test_an_entry_comes_back_as_it_went_in(backend: Backend) -> None:
    original = entry("e1", 1_700_000_000.123456, subject='"ada"\n\0é😀', entity="user/<1>")
    assert await backend.audit.append([original]) == 1
    assert await backend.audit.query(EVERYTHING, None, 10) == [original]


async def test_an_empty_trail_answers_and_is_whole(backend: Backend) -> None:
    assert await ids(backend) == []
    verdict = await backend.audit.verify()
    assert (verdict.rows, verdict.broken) == (0, None)


async def test_a_redelivered_entry_is_kept_once(backend: Backend) -> None:
    assert await backend.audit.append([entry("e1", 1), entry("e2", 2)]) == 2
    assert await backend.audit.append([entry("e2", 2), entry("e3", 3), entry("e3", 3)]) == 1
    assert await ids(backend) == ["e3", "e2", "e1"]


async def test_entries_come_newest_first_and_page_by_time_and_id(backend: Backend) -> None:
    await backend.audit.append([entry("b", 2), entry("a", 2), entry("d", 1), entry("c", 2), entry("e", 3)])
    pages = []
    before = None
    while page := await backend.audit.query(EVERYTHING, before, 2):
        pages.append([found.id for found in page])
        before = (page[-1].at, page[-1].id)
    assert pages == [["e", "c"], ["b", "a"], ["d"]]


async def test_conditions_are_joined(backend: Backend) -> None:
    await backend.audit.append(
        [
            entry("1", 1),
            entry("2", 2, subject="bob"),
            entry("3", 3, action="user.delete"),
            entry("4", 4, entity="user/2"),
            entry("5", 5),
        ]
    )
    assert await ids(backend, AuditFilter(subject="bob")) == ["2"]
    assert await ids(backend, AuditFilter(action="user.read", entity="user/1")) == ["5", "2", "1"]
    assert await ids(backend, AuditFilter(subject="ada", action="user.read", entity="user/1")) == ["5", "1"]
    assert await ids(backend, AuditFilter(since=2, until=4)) == ["3", "2"]
    assert await ids(backend, AuditFilter(subject="ada", since=4)) == ["5", "4"]
    assert await ids(backend, AuditFilter(subject="' OR 1=1 --")) == []


async def test_a_trail_is_verified_over_many_appends(backend: Backend) -> None:
    for batch in range(6):
        await backend.audit.append([entry(f"{batch}-{n}", n) for n in range(100)])
    verdict = await backend.audit.verify()
    assert (verdict.rows, verdict.broken) == (600, None)


async def test_equal_trails_have_equal_heads_and_others_not(open_backend: OpenBackend) -> None:
    heads = []
    for last in ("x", "x", "y"):
        async with open_backend() as backend:
            await backend.audit.append([entry("1", 1), entry(last, 2)])
            heads.append((await backend.audit.verify()).head)
    assert heads[0] == heads[1] != heads[2]


ENTRIES = st.builds(
    entry,
    st.integers(0, 12).map(str),
    st.integers(0, 5).map(float),
    st.sampled_from("ab"),
    st.sampled_from("cd"),
    st.sampled_from("ef"),
)
FILTERS = st.builds(
    AuditFilter,
    subject=st.none() | st.sampled_from("ab"),
    action=st.none() | st.sampled_from("cd"),
    entity=st.none() | st.sampled_from("ef"),
    since=st.none() | st.integers(0, 5),
    until=st.none() | st.integers(0, 5),
)


def matches(where: AuditFilter, found: AuditEntry) -> bool:
    return (
        where.subject in (None, found.subject)
        and where.action in (None, found.action)
        and where.entity in (None, found.entity)
        and (where.since is None or where.since <= found.at)
        and (where.until is None or found.at < where.until)
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(ENTRIES, max_size=6), max_size=4), FILTERS, st.integers(1, 5))
def test_any_query_agrees_with_a_sorted_list(
    open_backend: OpenBackend, batches: list[list[AuditEntry]], where: AuditFilter, limit: int
) -> None:
    async def run() -> None:
        model: dict[str, AuditEntry] = {}
        async with open_backend() as backend:
            for batch in batches:
                before_count = len(model)
                for new in batch:
                    model.setdefault(new.id, new)
                assert await backend.audit.append(batch) == len(model) - before_count
            expected = sorted(
                (found for found in model.values() if matches(where, found)),
                key=lambda found: (found.at, found.id),
                reverse=True,
            )
            read: list[AuditEntry] = []
            before = None
            while page := await backend.audit.query(where, before, limit):
                read += page
                before = (page[-1].at, page[-1].id)
            assert read == expected
            assert (await backend.audit.verify()).broken is None

    trio.run(run)
