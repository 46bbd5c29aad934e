"""From typed text to FTS5, as a pure function."""

import pytest

from backends.embedded.search_query import to_fts5
from backends.search_terms import MOST_TERMS, indexable, to_highlight


@pytest.mark.parametrize(
    ("typed", "expression"),
    [
        ("ada", '"ada"*'),
        ("  ada   love ", '"ada"* AND "love"*'),
        ('"ada lovelace" x', '"ada lovelace" AND "x"*'),
        ('ada"love lace"', '"ada"* AND "love lace"'),
        ('"open ended', '"open"* AND "ended"*'),
        ("ada OR bob", '"ada"* AND "OR"* AND "bob"*'),
        ("ada@example.com", '"ada@example.com"*'),
        ("- ada !", '"ada"*'),
        ("a\0b", '"a"* AND "b"*'),
        ("", None),
        ('"" "!" *', None),
    ],
)
def test_what_is_typed_is_quoted(typed: str, expression: str | None) -> None:
    assert to_fts5(typed) == expression


def test_a_very_long_query_is_cut() -> None:
    expression = to_fts5("word " * 1000)
    assert expression is not None
    assert expression.count("AND") == MOST_TERMS - 1


def test_only_the_engines_marks_become_markup() -> None:
    assert to_highlight("\x02<i>\x03") == "<mark>&lt;i&gt;</mark>"
    assert indexable("a\x02b\x03c\0d\ud800") == "a b c d?"
