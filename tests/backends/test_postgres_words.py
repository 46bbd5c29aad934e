"""Words, snippets and stored texts, as pure functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.postgres.text import from_id, from_text, to_id, to_text
from backends.postgres.words import MOST_BYTES, snippet, to_tsquery, to_tsvector, tokens_of
from backends.search_terms import indexable, terms_of


def words(text: str) -> list[str]:
    return [token.word for token in tokens_of(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ada Lovelace", ["ada", "lovelace"]),
        ("ada@example.com", ["ada", "example", "com"]),
        ("Zoë ZOE\u0308 straße", ["zoe", "zoe", "strasse"]),
        ("snake_case it's 3.14", ["snake", "case", "it", "s", "3", "14"]),
        ("日本語 Привет", ["日本語", "привет"]),
        ("\u0308 !? 😀", []),
    ],
)
def test_words_are_runs_of_letters_and_digits_without_case_and_diacritics(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_a_vector_has_positions_and_weights_and_a_gap_between_fields() -> None:
    assert to_tsvector(("Ada ada", "", "Bob's")) == "'ada':1A,2A 'bob':67C 's':68C"


def test_a_text_of_any_size_fits_into_a_vector() -> None:
    many = to_tsvector(("", "", " ".join(f"word{n}" for n in range(100_000))))
    assert len(many.encode()) < 2 * MOST_BYTES
    assert len(to_tsvector(("", "", "same " * 100_000))) < 5000


@pytest.mark.parametrize(
    ("q", "query"),
    [
        ("ada", "('ada':*)"),
        ("Ada love", "('ada':*) & ('love':*)"),
        ('"first program"', "('first' <-> 'program')"),
        ("ada@example.com", "('ada' <-> 'example' <-> 'com':*)"),
        ("ada & !bob:* | (x)", "('ada':*) & ('bob':*) & ('x':*)"),
        ("'; DROP TABLE", "('drop':*) & ('table':*)"),
        ("!?", None),
    ],
)
def test_what_is_typed_is_never_syntax(q: str, query: str | None) -> None:
    assert to_tsquery(terms_of(q)) == query


@pytest.mark.parametrize(
    ("fields", "q", "marked"),
    [
        (("Ada Lovelace", "", ""), "love", "Ada \x02Lovelace\x03"),
        (("", "", "first program, first"), '"first program"', "\x02first\x03 \x02program\x03, first"),
        (("Ada", "ada@ada.example", ""), "ada", "\x02ada\x03@\x02ada\x03.example"),
        (("", "", "Zoë!"), "zoe", "\x02Zoë\x03!"),
        (("", "", ""), "ada", ""),
    ],
)
def test_a_snippet_is_of_the_field_with_the_most_matches(fields: tuple[str, ...], q: str, marked: str) -> None:
    assert snippet(fields, terms_of(q)) == marked


def test_a_long_text_is_cut_around_the_match() -> None:
    text = " ".join(f"w{n}" for n in range(100)) + " needle " + " ".join(f"v{n}" for n in range(100))
    cut = snippet(("", "", text), terms_of("needle"))
    assert cut.startswith("…w98 w99 \x02needle\x03 v0")
    assert cut.endswith("…")
    assert len(words(indexable(cut))) == 16


@given(st.text(), st.text(), st.text())
def test_no_text_and_no_query_breaks_a_snippet(a: str, b: str, q: str) -> None:
    fields = (indexable(a), indexable(b), indexable(a + b))
    cut = snippet(fields, terms_of(q + " " + a))
    plain = cut.replace("\x02", "").replace("\x03", "").strip("…")
    assert any(plain in field or plain.strip("…") in field for field in (*fields, ""))


@given(st.text(st.characters()))
def test_texts_come_back_as_they_went_in(text: str) -> None:
    stored = to_text(text)
    assert "\0" not in stored
    stored.encode()
    assert from_text(stored) == text
    assert from_id(to_id(text)) == text


@pytest.mark.parametrize("text", ["a\0b", "\\u0000", "\\", "\\\\u0000\0", "\ud800x"])
def test_escapes_are_no_way_to_another_text(text: str) -> None:
    assert from_text(to_text(text)) == text
    assert to_text("a") == "a"
