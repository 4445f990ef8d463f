"""Titles: what a document is called, where its text does not say so itself."""

from __future__ import annotations

_BEGINNING_CHARS = 1_000  # where a text's own title would stand


def untold(title: str, text: str) -> str:
    """The title, or nothing where the beginning of the text says it already."""
    begins = " ".join(text[:_BEGINNING_CHARS].split()).casefold()
    return "" if " ".join(title.split()).casefold() in begins else title
