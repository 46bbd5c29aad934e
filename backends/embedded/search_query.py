"""From what a person types to an FTS5 expression. Pure.

Nothing that is typed is ever read as FTS5 syntax: every word and phrase goes into a quoted string.
"""

from backends.search_terms import terms_of


def to_fts5(q: str) -> str | None:
    """Words become prefixes that must all match, "quoted words" phrases; None when nothing is searchable."""
    return " AND ".join(f'"{term.text}"{"*" * term.prefix}' for term in terms_of(q)) or None
