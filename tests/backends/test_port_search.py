"""What every search index promises."""

import html
import re

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.ports.stores import Document, RebuildUnderWay
from tests.backends.conftest import Backend, OpenBackend


def user(id: str, name: str = "", email: str = "", bio: str = "", version: int = 1) -> Document:
    return Document(type="user", id=id, version=version, fields=(name, email, bio))


def gone(id: str, version: int) -> Document:
    return Document(type="user", id=id, version=version, deleted=True)


async def found(backend: Backend, q: str, type: str | None = None) -> list[str]:
    return [hit.id for hit in await backend.search.query(q, type, 0, 50)]


@pytest.fixture
async def people(backend: Backend) -> Backend:
    await backend.search.apply(
        [
            user("ada", "Ada Lovelace", "ada@example.com", "Wrote the first program."),
            user("zoe", "Zoë Kravitz", "zoe@example.org", "Met Ada once; likes first editions"),
            user("bob", "Bob", "bob@example.com", "program first"),
        ]
    )
    return backend


@pytest.mark.parametrize(
    ("q", "ids"),
    [
        ("lovelace", ["ada"]),
        ("LOVE", ["ada"]),
        ("zoe", ["zoe"]),
        ("ZOË", ["zoe"]),
        ("first prog", ["ada", "bob"]),
        ('"first program"', ["ada"]),
        ('"program first"', ["bob"]),
        ('bob "first"', ["bob"]),
        ("example.com", ["ada", "bob"]),
        ("ada@example.com", ["ada"]),
        ("ada nobody", []),
        ("ovelace", []),
        ('"love"', []),
    ],
)
async def test_words_are_prefixes_and_quotes_phrases(people: Backend, q: str, ids: list[str]) -> None:
    assert sorted(await found(people, q)) == ids


@pytest.mark.parametrize("q", ["", "   ", '"', '""', "***", "()", "!?", '" "', "\0", "😀", "-", "̈"])
async def test_without_a_searchable_word_nothing_is_found(people: Backend, q: str) -> None:
    assert await found(people, q) == []


@pytest.mark.parametrize(
    "q", ["ada OR bob", "NOT ada", "name:ada", "ada*", "^ada", "NEAR(ada bob)", "ada)", "{name} : ada", "a AND b", "'"]
)
async def test_the_engines_own_syntax_means_nothing(people: Backend, q: str) -> None:
    """Words like OR are words to look for; no text here holds them."""
    assert set(await found(people, q)) <= {"ada", "zoe"}
    assert "bob" not in await found(people, q)


async def test_a_match_in_the_name_comes_first(people: Backend) -> None:
    hits = await people.search.query("ada", None, 0, 10)
    assert [hit.id for hit in hits] == ["ada", "zoe"]
    assert hits[0].score > hits[1].score > 0


async def test_hits_are_paged_without_gaps(backend: Backend) -> None:
    await backend.search.apply([user(f"u{n:02}", "same name") for n in range(25)])
    pages = [[hit.id for hit in await backend.search.query("same", None, offset, 10)] for offset in (0, 10, 20, 30)]
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert sorted(id for page in pages for id in page) == [f"u{n:02}" for n in range(25)]


async def test_types_are_told_apart(backend: Backend) -> None:
    await backend.search.apply(
        [user("x", "thing"), Document(type="configuration", id="x", version=1, fields=("thing", "", ""))]
    )
    assert [hit.type for hit in await backend.search.query("thing", "configuration", 0, 10)] == ["configuration"]
    assert len(await backend.search.query("thing", None, 0, 10)) == 2
    assert await found(backend, "thing", "webhook") == []


async def test_the_highlight_marks_the_match(people: Backend) -> None:
    (hit,) = await people.search.query("love", None, 0, 10)
    assert hit.highlight == "Ada <mark>Lovelace</mark>"


async def test_the_highlight_is_safe_html(backend: Backend) -> None:
    await backend.search.apply([user("x", "<b>Eve</b> & <mark>\x02forged\x03 'q'")])
    (hit,) = await backend.search.query("eve", None, 0, 10)
    assert hit.highlight == "&lt;b&gt;<mark>Eve</mark>&lt;/b&gt; &amp; &lt;mark&gt; forged  &#x27;q&#x27;"


async def test_only_a_higher_version_changes_a_document(backend: Backend) -> None:
    assert await backend.search.apply([user("x", "old", version=2)]) == 1
    assert await backend.search.apply([user("x", "older", version=1), user("x", "equal", version=2)]) == 0
    assert await backend.search.apply([user("x", "new", version=3)]) == 1
    assert [await found(backend, q) for q in ("old", "older", "equal", "new")] == [[], [], [], ["x"]]


async def test_versions_apply_within_a_batch_too(backend: Backend) -> None:
    assert (
        await backend.search.apply([user("x", "two", version=2), user("x", "one"), user("x", "three", version=3)]) == 2
    )
    assert [await found(backend, q) for q in ("one", "two", "three")] == [[], [], ["x"]]


async def test_a_late_event_cannot_revive_the_deleted(backend: Backend) -> None:
    await backend.search.apply([user("x", "alive"), gone("x", 2)])
    assert await found(backend, "alive") == []
    assert await backend.search.apply([user("x", "alive", version=2)]) == 0
    assert await found(backend, "alive") == []
    assert await backend.search.apply([user("x", "again", version=3)]) == 1
    assert await found(backend, "again") == ["x"]


async def test_a_deletion_may_come_before_what_it_deletes(backend: Backend) -> None:
    assert await backend.search.apply([gone("x", 2)]) == 1
    assert await backend.search.apply([user("x", "late", version=1)]) == 0
    assert await found(backend, "late") == []


async def test_a_match_in_the_name_outweighs_one_in_the_email_and_that_one_in_the_bio(backend: Backend) -> None:
    await backend.search.apply(
        [
            user("bio", "Zed One", "zed1@x.org", "knows ada"),
            user("email", "Zed Two", "ada@x.org", "knows zed"),
            user("name", "Ada Three", "zed3@x.org", "knows zed"),
            user("none", "Zed Four", "zed4@x.org", "knows zed"),
        ]
    )
    assert await found(backend, "ada") == ["name", "email", "bio"]


async def test_what_can_be_found_is_counted(people: Backend) -> None:
    await people.search.apply([gone("bob", 2), gone("eve", 1), user("ada", "Countess Ada", version=2)])
    assert await people.search.count() == 2


# Building the index anew.


async def test_a_rebuilt_index_answers_with_what_it_was_built_from(people: Backend) -> None:
    async with people.search.rebuilding() as fresh:
        assert await fresh.apply([user("ada", "Ada"), user("eve", "Eve")]) == 2
        await fresh.swap()
    assert [await found(people, q) for q in ("ada", "eve", "bob")] == [["ada"], ["eve"], []]
    assert await people.search.apply([user("bob", "Bob", version=2), user("eve", "Eva", version=2)]) == 2
    assert [await found(people, q) for q in ("bob", "eve", "eva")] == [["bob"], [], ["eve"]]


async def test_meanwhile_the_old_index_answers(people: Backend) -> None:
    async with people.search.rebuilding() as fresh:
        await fresh.apply([user("eve", "Eve")])
        assert [await found(people, q) for q in ("love", "eve")] == [["ada"], []]
        await fresh.swap()
    assert [await found(people, q) for q in ("love", "eve")] == [[], ["eve"]]


async def test_events_that_arrive_meanwhile_are_in_both(people: Backend) -> None:
    async with people.search.rebuilding() as fresh:
        await people.search.apply([user("eve", "Eve", version=3), gone("bob", 2)])
        assert [await found(people, q) for q in ("eve", "bob")] == [["eve"], []]
        # What was read from the database before, and is applied only now, is older.
        assert await fresh.apply([user("eve", "Old Eve", version=2), user("bob", "Bob"), user("ada", "Ada")]) == 1
        await fresh.swap()
    assert [await found(people, q) for q in ("eve", "old", "bob", "ada")] == [["eve"], [], [], ["ada"]]


async def test_the_deleted_are_remembered_over_a_rebuild(people: Backend) -> None:
    await people.search.apply([gone("bob", 2)])
    async with people.search.rebuilding() as fresh:
        assert await fresh.apply([user("ada", "Ada"), user("bob", "Bob")]) == 1
        await fresh.swap()
    assert await people.search.apply([user("bob", "Bob")]) == 0
    assert await found(people, "bob") == []


async def test_a_rebuild_that_fails_leaves_the_old_index_and_the_next_one_begins_afresh(people: Backend) -> None:
    async def fail() -> None:
        async with people.search.rebuilding() as fresh:
            await fresh.apply([user("eve", "Eve")])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert [await found(people, q) for q in ("bob", "eve")] == [["bob"], []]
    assert await people.search.apply([user("dan", "Dan")]) == 1
    async with people.search.rebuilding() as fresh:
        await fresh.apply([user("ada", "Ada")])
        await fresh.swap()
    assert [await found(people, q) for q in ("ada", "eve", "dan")] == [["ada"], [], []]


async def test_a_rebuild_that_is_cancelled_leaves_the_old_index(people: Backend) -> None:
    with trio.CancelScope() as scope:
        async with people.search.rebuilding() as fresh:
            await fresh.apply([user("eve", "Eve")])
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert [await found(people, q) for q in ("bob", "eve")] == [["bob"], []]
    async with people.search.rebuilding():
        pass


async def test_there_is_one_rebuild_at_a_time(people: Backend) -> None:
    async with people.search.rebuilding():
        with pytest.raises(RebuildUnderWay):
            async with people.search.rebuilding():
                raise AssertionError
    assert await found(people, "bob") == ["bob"]


async def test_many_documents_go_in_at_once(backend: Backend) -> None:
    assert await backend.search.apply([user(f"u{n:03}", "same") for n in range(300)]) == 300
    assert len(await backend.search.query("same", None, 0, 500)) == 300


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["live", "fresh"]),
        st.sampled_from("abc"),  # id
        st.integers(1, 5),  # version
        st.booleans(),  # deleted
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(before=STEPS, during=STEPS, swap=st.booleans())
def test_whatever_comes_in_whatever_order_the_highest_version_of_each_document_stands(
    open_backend: OpenBackend,
    before: list[tuple[str, str, int, bool]],
    during: list[tuple[str, str, int, bool]],
    swap: bool,
) -> None:
    def document(id: str, version: int, deleted: bool) -> Document:
        return gone(id, version) if deleted else user(id, f"same v{version}", version=version)

    def put(model: dict[str, Document], new: Document) -> None:
        if new.id not in model or new.version > model[new.id].version:
            model[new.id] = new

    def shown(model: dict[str, Document]) -> list[str]:
        return sorted(d.id for d in model.values() if not d.deleted)

    async def run() -> None:
        old: dict[str, Document] = {}
        async with open_backend() as backend:
            for _, *rest in before:
                put(old, document(*rest))
                await backend.search.apply([document(*rest)])
            new = {id: d for id, d in old.items() if d.deleted}
            async with backend.search.rebuilding() as fresh:
                for where, *rest in during:
                    put(new, document(*rest))
                    if where == "live":
                        put(old, document(*rest))
                        await backend.search.apply([document(*rest)])
                    else:
                        await fresh.apply([document(*rest)])
                    assert sorted(await found(backend, "same")) == shown(old)
                if swap:
                    await fresh.swap()
            standing = new if swap else old
            assert sorted(await found(backend, "same")) == shown(standing)
            for d in standing.values():
                if not d.deleted:
                    assert d.id in await found(backend, f"v{d.version}")

    trio.run(run)


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=12), st.lists(st.text(max_size=12), min_size=3, max_size=3), st.text(max_size=12))
def test_any_text_is_safe_to_index_and_any_query_safe_to_ask(
    open_backend: OpenBackend, id: str, fields: list[str], q: str
) -> None:
    async def run() -> None:
        name, email, bio = fields
        async with open_backend() as backend:
            await backend.search.apply([user(id, name, email, bio)])
            for asked in (q, name, f'"{bio}"', q + "\ud800"):
                for hit in await backend.search.query(asked, None, 0, 5):
                    assert hit.id == id
                    plain = re.sub("</?mark>", "", hit.highlight)
                    assert "<" not in plain
                    assert html.escape(html.unescape(plain)) == plain

    trio.run(run)
