"""What every audit store promises."""

from collections.abc import Sequence

import msgspec
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.ports.stores import AuditEntry, AuditFilter, AuditHead, AuditVerdict
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


def sign(head: AuditHead) -> str:
    return f"signed {head}"


async def verified(backend: Backend, expected: Sequence[AuditHead] = ()) -> AuditVerdict:
    return await backend.audit.verify(trusted=lambda head, signature: signature == sign(head), expected=expected)


async def ids(backend: Backend, where: AuditFilter = EVERYTHING, limit: int = 50) -> list[str]:
    return [found.id for found in await backend.audit.query(where, None, limit)]


async def test_an_entry_comes_back_as_it_went_in(backend: Backend) -> None:
    original = entry("e1", 1_700_000_000.123456, subject='"ada"\n\0é😀', entity="user/<1>")
    assert await backend.audit.append("t/0", [original]) == 1
    assert await backend.audit.query(EVERYTHING, None, 10) == [original]


async def test_an_empty_trail_answers_and_is_whole(backend: Backend) -> None:
    assert await ids(backend) == []
    verdict = await verified(backend)
    assert (verdict.rows, verdict.heads, verdict.broken) == (0, (), ())


async def test_a_redelivered_entry_is_kept_once(backend: Backend) -> None:
    assert await backend.audit.append("t/0", [entry("e1", 1), entry("e2", 2)]) == 2
    assert await backend.audit.append("t/0", [entry("e2", 2), entry("e3", 3), entry("e3", 3)]) == 1
    assert await ids(backend) == ["e3", "e2", "e1"]


async def test_entries_come_newest_first_and_page_by_time_and_id(backend: Backend) -> None:
    await backend.audit.append("t/0", [entry("b", 2), entry("a", 2), entry("d", 1), entry("c", 2), entry("e", 3)])
    pages = []
    before = None
    while page := await backend.audit.query(EVERYTHING, before, 2):
        pages.append([found.id for found in page])
        before = (page[-1].at, page[-1].id)
    assert pages == [["e", "c"], ["b", "a"], ["d"]]


async def test_conditions_are_joined(backend: Backend) -> None:
    await backend.audit.append(
        "t/0",
        [
            entry("1", 1),
            entry("2", 2, subject="bob"),
            entry("3", 3, action="user.delete"),
            entry("4", 4, entity="user/2"),
            entry("5", 5),
        ],
    )
    assert await ids(backend, AuditFilter(subject="bob")) == ["2"]
    assert await ids(backend, AuditFilter(action="user.read", entity="user/1")) == ["5", "2", "1"]
    assert await ids(backend, AuditFilter(subject="ada", action="user.read", entity="user/1")) == ["5", "1"]
    assert await ids(backend, AuditFilter(since=2, until=4)) == ["3", "2"]
    assert await ids(backend, AuditFilter(subject="ada", since=4)) == ["5", "4"]
    assert await ids(backend, AuditFilter(subject="' OR 1=1 --")) == []


async def test_a_trail_is_verified_over_many_appends(backend: Backend) -> None:
    for batch in range(6):
        await backend.audit.append("t/0", [entry(f"{batch}-{n}", n) for n in range(100)])
    verdict = await verified(backend)
    assert (verdict.rows, verdict.broken) == (600, ())


async def test_equal_trails_have_equal_heads_and_others_not(open_backend: OpenBackend) -> None:
    heads = []
    for last in ("x", "x", "y"):
        async with open_backend() as backend:
            await backend.audit.append("t/0", [entry("1", 1), entry(last, 2)])
            heads.append((await verified(backend)).heads)
    assert heads[0] == heads[1] != heads[2]


async def test_each_chain_counts_its_rows_without_gaps(backend: Backend) -> None:
    await backend.audit.append("t/1", [entry("a", 1), entry("b", 1)])
    await backend.audit.append("t/0", [entry("c", 1), entry("a", 1), entry("d", 1)])
    await backend.audit.append("t/1", [entry("c", 1), entry("e", 1)])
    assert [(head.chain, head.sequence) for head in await backend.audit.heads()] == [("t/0", 2), ("t/1", 3)]
    assert list((await verified(backend)).heads) == await backend.audit.heads()


async def test_equal_rows_have_other_hashes_in_another_chain(open_backend: OpenBackend) -> None:
    hashes = []
    for chain in ("t/0", "t/1"):
        async with open_backend() as backend:
            await backend.audit.append(chain, [entry("1", 1)])
            hashes += [head.hash for head in await backend.audit.heads()]
    assert hashes[0] != hashes[1]


async def test_a_head_known_from_elsewhere_stays_in_the_trail_however_it_grows(backend: Backend) -> None:
    await backend.audit.append("t/0", [entry(f"a{n}", n) for n in range(5)])
    known = await backend.audit.heads()
    await backend.audit.append("t/0", [entry(f"b{n}", n) for n in range(5)])
    await backend.audit.append("t/1", [entry(f"c{n}", n) for n in range(5)])
    assert (await verified(backend, known)).broken == ()
    other = [msgspec.structs.replace(known[0], hash="00" * 32)]
    assert [(broke.chain, broke.sequence) for broke in (await verified(backend, other)).broken] == [("t/0", 5)]
    longer = [msgspec.structs.replace(known[0], sequence=11)]
    assert [(broke.chain, broke.sequence) for broke in (await verified(backend, longer)).broken] == [("t/0", 11)]
    absent = [msgspec.structs.replace(known[0], chain="t/9")]
    assert [(broke.chain, broke.sequence) for broke in (await verified(backend, absent)).broken] == [("t/9", 1)]


async def test_a_verification_tells_how_far_it_is(backend: Backend) -> None:
    await backend.audit.append("t/0", [entry(f"a{n}", n) for n in range(700)])
    await backend.audit.append("t/1", [entry(f"b{n}", n) for n in range(300)])
    told: list[tuple[int, int]] = []
    await backend.audit.verify(trusted=lambda *_: False, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert len(told) >= 2
    assert told[-1] == (1000, 1000)


async def test_retention_drops_prefixes_and_the_rest_stays_whole(backend: Backend) -> None:
    await backend.audit.append("t/0", [entry(f"a{n}", n) for n in (1, 2, 9, 3)])
    await backend.audit.append("t/1", [entry(f"b{n}", n) for n in (1, 2, 3)])
    before = await backend.audit.heads()
    assert await backend.audit.drop_prefix(5, 100, sign) == 5
    assert await ids(backend) == ["a9", "a3"], "a3 stands behind a row that stays"
    verdict = await verified(backend, before)
    assert (verdict.rows, verdict.broken) == (2, ())
    assert await backend.audit.heads() == before
    assert await backend.audit.drop_prefix(5, 100, sign) == 0
    assert await backend.audit.append("t/1", [entry("b4", 4)]) == 1
    assert (await verified(backend, before)).broken == ()


async def test_retention_drops_a_bounded_number_at_a_time(backend: Backend) -> None:
    await backend.audit.append("t/0", [entry(f"a{n}", n) for n in range(10)])
    await backend.audit.append("t/1", [entry(f"b{n}", n) for n in range(10)])
    dropped = []
    while more := await backend.audit.drop_prefix(8, 6, sign):
        dropped.append(more)
        assert (await verified(backend)).broken == ()
    assert dropped == [6, 6, 4]


async def test_a_checkpoint_of_another_key_does_not_hold(backend: Backend) -> None:
    await backend.audit.append("t/0", [entry(f"a{n}", n) for n in range(10)])
    await backend.audit.drop_prefix(5, 100, lambda head: "signed with another key")
    (broken,) = (await verified(backend)).broken
    assert (broken.chain, broken.sequence) == ("t/0", 1)


async def test_rows_that_retention_drops_under_a_verification_are_not_missing(backend: Backend) -> None:
    await backend.audit.append("t/0", [entry(f"a{n}", n) for n in range(2000)])

    async with trio.open_nursery() as nursery:
        begun = trio.Event()

        async def drop() -> None:
            await begun.wait()
            await backend.audit.drop_prefix(1800, 5000, sign)

        nursery.start_soon(drop)
        verdict = await backend.audit.verify(
            trusted=lambda head, signature: signature == sign(head), progress=lambda done, total: begun.set()
        )
    assert verdict.broken == ()


async def test_what_is_appended_while_pages_are_read_neither_repeats_nor_skips_a_row(backend: Backend) -> None:
    await backend.audit.append("t/0", [entry(f"a{n}", n // 3) for n in range(12)])
    there = await ids(backend)
    read: list[str] = []
    before = None
    while page := await backend.audit.query(EVERYTHING, before, 2):
        read += [found.id for found in page]
        before = (page[-1].at, page[-1].id)
        at = page[-1].at
        late = [entry(f"late-{len(read)}-{n}", at + n) for n in (-1, 0, 1)]  # before, beside and behind the cursor
        await backend.audit.append("t/1", late if len(read) < 12 else [])
    assert len(read) == len(set(read))
    assert [id for id in read if not id.startswith("late")] == there


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
                assert await backend.audit.append("t/0", batch) == len(model) - before_count
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
            assert (await verified(backend)).broken == ()

    trio.run(run)
