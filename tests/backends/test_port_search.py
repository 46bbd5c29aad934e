"""What every search index promises."""

import html
import re

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.ports.stores import Document
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


async def test_a_cleared_index_is_filled_anew_and_remembers_the_deleted(people: Backend) -> None:
    await people.search.apply([gone("bob", 2)])
    await people.search.clear()
    assert await found(people, "ada") == []
    assert await people.search.apply([user("ada", "Ada"), user("bob", "Bob")]) == 1
    assert await found(people, "ada") == ["ada"]
    assert await found(people, "bob") == []


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
