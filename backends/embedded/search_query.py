"""From what a person types to an FTS5 expression, and from FTS5's markers to a safe highlight. Pure.

Nothing that is typed is ever read as FTS5 syntax: every word and phrase goes into a quoted string.
"""

import html
import re
import unicodedata

# More words than this narrow nothing down and cost time; the rest is left out.
MOST_TERMS = 16

# FTS5 puts these around matches. Texts are stored without them (`indexable`), so none can be forged.
MATCH_START, MATCH_END = "\x02", "\x03"

_PHRASE_OR_WORD = re.compile(r'"([^"]*)"|([^\s"]+)')
_NOT_INDEXED = {0: " ", 2: " ", 3: " "}


def to_fts5(q: str) -> str | None:
    """Words become prefixes that must all match, "quoted words" phrases; None when nothing is searchable.

    An opening quote without a closing one is ignored.
    """
    # A lone surrogate cannot be sent to SQLite, and a NUL would end its string early.
    text = q.encode("utf-8", "replace").decode().replace("\0", " ")
    terms: list[str] = []
    for phrase, word in _PHRASE_OR_WORD.findall(text):
        if phrase and _searchable(phrase):
            terms.append(f'"{phrase}"')
        elif word and _searchable(word):
            terms.append(f'"{word}"*')
    return " AND ".join(terms[:MOST_TERMS]) or None


def indexable(text: str) -> str:
    """*text* without the characters that would confuse FTS5 or the highlight."""
    return text.encode("utf-8", "replace").decode().translate(_NOT_INDEXED)


def to_highlight(marked: str) -> str:
    """FTS5's snippet as HTML: everything escaped but the `<mark>`s."""
    return html.escape(marked).replace(MATCH_START, "<mark>").replace(MATCH_END, "</mark>")


def _searchable(text: str) -> bool:
    """Whether the tokenizer (unicode61) sees a token in *text*: a letter, a digit or a private character."""
    return any(unicodedata.category(c)[0] in "LN" or unicodedata.category(c) == "Co" for c in text)
