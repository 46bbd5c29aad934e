"""The words of a text as PostgreSQL's tsvector and tsquery, and a snippet around those that matched. Pure.

The words are found here and not by PostgreSQL's parsers and dictionaries: those know languages, e-mail addresses and
URLs, each with rules of its own, and what is found would depend on the engine. The rules are those of FTS5's
`unicode61`: runs of letters and digits, without case and without diacritics.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from backends.search_terms import MATCH_END, MATCH_START, Term, is_token_character

# tsvector's own limits: a position is at most 16383, a lexeme 2046 bytes, all of them together a mebibyte.
MOST_POSITION = 16383
MOST_CHARACTERS = 500
MOST_BYTES = 512 * 1024
# Between two fields, so that no phrase runs from one into the next.
GAP = 32
WEIGHTS = "ABC"
SNIPPET_TOKENS = 16

_MARKS = "".join(chr(c) for c in range(0x300, 0x370))
_TOKEN = re.compile(rf"[^\W_](?:[^\W_]|[{_MARKS}])*|[\ue000-\uf8ff](?:[^\W_]|[{_MARKS}\ue000-\uf8ff])*")


class Token(NamedTuple):
    """`text[start:end]`, and how it is compared."""

    start: int
    end: int
    word: str


def tokens_of(text: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(text):
        word = folded(match[0])
        if word:
            yield Token(match.start(), match.end(), word)


def folded(word: str) -> str:
    """Without case and diacritics, and not longer than a lexeme may be."""
    if word.isascii():
        return word.lower()[:MOST_CHARACTERS]
    bare = "".join(c for c in unicodedata.normalize("NFD", word.casefold()) if is_token_character(c))
    return unicodedata.normalize("NFC", bare)[:MOST_CHARACTERS]


def to_tsvector(fields: Sequence[str]) -> str:
    """The text of a tsvector of *fields*, the first weighted A, and so on. Words beyond its limits are left out."""
    lexemes: dict[str, list[str]] = {}
    size, position = 0, 0
    for field, weight in zip(fields, WEIGHTS, strict=False):
        for token in tokens_of(field):
            position = min(position + 1, MOST_POSITION)
            known = lexemes.get(token.word)
            if known is None:
                size += len(token.word.encode()) + 8
                if size > MOST_BYTES:
                    break
                known = lexemes[token.word] = []
            if len(known) < 255:
                known.append(f"{position}{weight}")
        position = min(position + GAP, MOST_POSITION)
    return " ".join(f"{_quoted(word)}:{','.join(places)}" for word, places in lexemes.items())


def to_tsquery(terms: Sequence[Term]) -> str | None:
    """The text of a tsquery that *terms* must all match; None when nothing is to be looked for."""
    parts = []
    for words, prefix in _wanted(terms):
        lexemes = [_quoted(word) for word in words]
        parts.append(" <-> ".join(lexemes) + (":*" if prefix else ""))
    return " & ".join(f"({part})" for part in parts) or None


def snippet(fields: Sequence[str], terms: Sequence[Term]) -> str:
    """Up to 16 tokens of the first field with the most matches, these between `MATCH_START` and `MATCH_END`."""
    wanted = _wanted(terms)
    best: tuple[int, str, list[Token], list[int]] = (0, "", [], [])
    for field in fields:
        tokens = list(tokens_of(field))
        matched = _matches([token.word for token in tokens], wanted)
        if len(matched) > best[0]:
            best = (len(matched), field, tokens, matched)
    _, field, tokens, matched = best
    if not matched:
        return ""
    first = _window(matched, len(tokens))
    return _marked(field, tokens, set(matched), first, min(first + SNIPPET_TOKENS, len(tokens)))


def _wanted(terms: Sequence[Term]) -> list[tuple[list[str], bool]]:
    found = (([token.word for token in tokens_of(term.text)], term.prefix) for term in terms)
    return [(words, prefix) for words, prefix in found if words]


def _matches(words: Sequence[str], wanted: Sequence[tuple[list[str], bool]]) -> list[int]:
    """The places in *words* that belong to a match, in order."""
    found: set[int] = set()
    for phrase, prefix in wanted:
        for at in range(len(words) - len(phrase) + 1):
            *most, last = words[at : at + len(phrase)]
            if most == phrase[:-1] and (last.startswith(phrase[-1]) if prefix else last == phrase[-1]):
                found.update(range(at, at + len(phrase)))
    return sorted(found)


def _window(matched: Sequence[int], count: int) -> int:
    """Where to begin, so that as many matches as possible are shown, with a little before the first of them."""

    def shown(start: int) -> int:
        return sum(start <= place < start + SNIPPET_TOKENS for place in matched)

    best = max(matched, key=lambda place: (shown(place), -place))
    return max(0, min(best - 2, count - SNIPPET_TOKENS)) if count > SNIPPET_TOKENS else 0


def _marked(field: str, tokens: Sequence[Token], matched: set[int], first: int, last: int) -> str:
    """The field's text from token *first* up to *last*; runs of matches that only space parts stay apart."""
    pieces: list[str] = []
    at = 0 if first == 0 else tokens[first].start
    for place in range(first, last):
        token = tokens[place]
        text = field[token.start : token.end]
        pieces += [field[at : token.start], f"{MATCH_START}{text}{MATCH_END}" if place in matched else text]
        at = token.end
    end = "" if last < len(tokens) else field[at:]
    return ("…" if first else "") + "".join(pieces) + end + ("…" if last < len(tokens) else "")


def _quoted(word: str) -> str:
    """Tokens hold letters and digits alone; quoted all the same, as PostgreSQL has words of its own."""
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"
