"""Find words quoted from a text although white space, quotation marks, case or hyphens differ.

The span found is in the original text, so a citation made from it is exact.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

_SAME = str.maketrans(
    {"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "‚": "'", "ʼ": "'", "`": "'"}
    | dict.fromkeys("‐‑‒–—−", "-")
    | {"\u00ad": ""}
)


@dataclass(frozen=True, slots=True)
class Folded:
    """A text as compared, and for each of its characters the position of the original one."""

    text: str
    origins: tuple[int, ...]


def fold(text: str) -> Folded:
    """Compatibility forms, case, quotation marks and dashes unified; white space collapsed; hyphens
    inside words left out, with the line break that may follow them."""
    characters: list[str] = []
    origins: list[int] = []
    for position, original in enumerate(text):
        for c in unicodedata.normalize("NFKC", original).translate(_SAME).casefold():
            if c.isspace():
                if characters and characters[-1] != " ":
                    characters.append(" ")
                    origins.append(position)
            else:
                if c.isalpha() and (hyphen := _hyphen_before(characters, origins, text)):
                    del characters[-hyphen:], origins[-hyphen:]
                characters.append(c)
                origins.append(position)
    return Folded("".join(characters), tuple(origins))


def locate(quote: str, text: str | Folded) -> tuple[int, int] | None:
    """Half-open span of the first occurrence of ``quote`` in the text at word boundaries, or None."""
    where = fold(text) if isinstance(text, str) else text
    wanted = fold(unicodedata.normalize("NFC", quote)).text.strip().strip('"').rstrip(".").strip()
    at = where.text.find(wanted) if wanted else -1
    while at >= 0:
        end = at + len(wanted)
        if _is_boundary(where.text, at) and _is_boundary(where.text, end):
            return where.origins[at], where.origins[end - 1] + 1
        at = where.text.find(wanted, at + 1)
    return None


def _hyphen_before(characters: list[str], origins: list[int], text: str) -> int:
    """How many of the last characters are a hyphen inside a word: 1, 2 with a line break, or 0."""
    length = 2 if characters[-1:] == [" "] else 1
    if (
        characters[-length : len(characters) - length + 1] != ["-"]
        or not "".join(characters[-length - 1 : -length]).isalpha()
    ):
        return 0
    gap = text[origins[-length] + 1 : origins[-1] + 2]
    return length if length == 1 or "\n" in gap else 0


def _is_boundary(text: str, at: int) -> bool:
    """Whether no word or number continues across the position (ideographs are words of their own)."""
    if at in (0, len(text)):
        return True
    before, after = text[at - 1], text[at]
    if before.isdigit() and after in ".,":
        return not text[at + 1 : at + 2].isdigit()
    if before in ".," and after.isdigit():
        return not text[at - 2 : at - 1].isdigit()
    return not (before.isalnum() and after.isalnum()) or before >= "\u3040" or after >= "\u3040"
