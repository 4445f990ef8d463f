"""Titles: what a document is called, where its text does not say so itself."""

from __future__ import annotations

import regex  # type: ignore[import-untyped]

from pipeline import words

_BEGINNING_CHARS = 1_000  # where a text's own title would stand
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}'’-]*|(?:\p{L}\.)+\p{L}", regex.V1)
_FEWEST_WORDS = 2


def untold(title: str, text: str) -> str:
    """The title, or nothing where the beginning of the text says it already."""
    begins = " ".join(text[:_BEGINNING_CHARS].split()).casefold()
    return "" if " ".join(title.split()).casefold() in begins else title


def telling(title: str, text: str) -> str:
    """The title, where it tells something (:func:`tells`) that the beginning of the text does not; else
    nothing."""
    found = untold(title, text)
    return found if tells(found) else ""


def tells(title: str) -> bool:
    """Whether a title may say what the document is about: it has two words of letters at least, as names of
    files and numbers of records seldom do. In a script without spaces two characters are a word."""
    found = [token for token in words.tokens(title) if _WORD.fullmatch(token)]
    return sum(max(1, len(t) // 2) if words.spaceless(t) else 1 for t in found) >= _FEWEST_WORDS
