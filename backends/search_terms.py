"""From what a person types to words and phrases to look for, and from marked text to a safe highlight. Pure.

What every engine's index shares; each turns the terms into its own syntax, quoted, so that nothing typed is syntax.
"""

import html
import re
import unicodedata
from typing import NamedTuple

# More words than this narrow nothing down and cost time; the rest is left out.
MOST_TERMS = 16

# These go around matches. Texts are stored without them (`indexable`), so none can be forged.
MATCH_START, MATCH_END = "\x02", "\x03"

_PHRASE_OR_WORD = re.compile(r'"([^"]*)"|([^\s"]+)')
_NOT_INDEXED = {0: " ", 2: " ", 3: " "}


class Term(NamedTuple):
    """A text of one or more tokens in a row; with *prefix* its last one may go on."""

    text: str
    prefix: bool


def terms_of(q: str) -> list[Term]:
    """Words are prefixes, "quoted words" phrases, and all must match; [] when nothing is searchable.

    An opening quote without a closing one is ignored.
    """
    # No engine takes a lone surrogate, and a NUL would end SQLite's string early.
    text = q.encode("utf-8", "replace").decode().replace("\0", " ")
    found = [Term(phrase or word, not phrase) for phrase, word in _PHRASE_OR_WORD.findall(text)]
    return [term for term in found if is_searchable(term.text)][:MOST_TERMS]


def indexable(text: str) -> str:
    """*text* without the characters that would confuse an index or the highlight."""
    return text.encode("utf-8", "replace").decode().translate(_NOT_INDEXED)


def to_highlight(marked: str) -> str:
    """A snippet with `MATCH_START` and `MATCH_END` as HTML: everything escaped but the `<mark>`s."""
    return html.escape(marked).replace(MATCH_START, "<mark>").replace(MATCH_END, "</mark>")


def is_searchable(text: str) -> bool:
    """Whether there is a token in *text*: a letter, a digit or a private character."""
    return any(is_token_character(c) for c in text)


def is_token_character(c: str) -> bool:
    category = unicodedata.category(c)
    return category[0] in "LN" or category == "Co"
