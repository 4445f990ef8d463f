"""Glyphs as they are placed, letters as they are read: accents on letters, words from right to left."""

from __future__ import annotations

import unicodedata

Glyph = tuple[str, float, float]
"""Text, left and right edge in reading direction of its word."""

ACCENTS = {
    "\u00a8": "\u0308",
    "\u00b4": "\u0301",
    "\u0060": "\u0300",
    "\u02c6": "\u0302",
    "\u005e": "\u0302",
}
ACCENTS |= {
    "\u02dc": "\u0303",
    "\u00b8": "\u0327",
    "\u02c7": "\u030c",
    "\u02da": "\u030a",
    "\u00af": "\u0304",
}


def accented(glyphs: list[Glyph]) -> list[Glyph]:
    """Accents drawn on top of a letter, before or after it, as one letter ("¨u" is "ü")."""
    out: list[Glyph] = []
    waiting = ""
    for text, x0, x1 in glyphs:
        if waiting:
            before, b0, b1 = out.pop()
            on_next = x0 <= (b0 + b1) / 2 <= x1 and text.isalpha()
            out.append(
                (unicodedata.normalize("NFC", text + waiting), x0, x1) if on_next else (before, b0, b1)
            )
            waiting = ""
            if on_next:
                continue
            out.append((text, x0, x1))
            continue
        centre = (x0 + x1) / 2
        if text in ACCENTS and out and out[-1][1] <= centre <= out[-1][2] and out[-1][0].isalpha():
            letter, b0, b1 = out.pop()
            out.append((unicodedata.normalize("NFC", letter + ACCENTS[text]), b0, b1))
            continue
        waiting = ACCENTS.get(text, "")
        out.append((text, x0, x1))
    return out


def is_rtl(char: str) -> bool:
    """Whether the character is a letter of a script written from right to left."""
    return char > "\u0590" and unicodedata.bidirectional(char) in ("R", "AL")


def logical(glyphs: list[Glyph]) -> str:
    """The text of a word of a right-to-left script, in the order in which it is read.

    Letters go from right to left by place, marks stay with the letter they sit on, and numbers and
    Latin letters within go from left to right. PDFium writes the letters of one glyph (lam-alef)
    backwards; they are recognised by having one box.
    """
    bases = [glyph for glyph in glyphs if not is_mark(glyph[0])]
    marks = [glyph for glyph in glyphs if is_mark(glyph[0])]
    if not bases:
        return "".join(glyph[0] for glyph in glyphs)
    groups: dict[tuple[float, float], list[str]] = {}
    for text, x0, x1 in bases:
        groups.setdefault((x0, x1), []).append(text)
    carried: dict[tuple[float, float], str] = dict.fromkeys(groups, "")
    for text, x0, x1 in marks:
        centre = (x0 + x1) / 2
        place = min(groups, key=lambda box: abs((box[0] + box[1]) / 2 - centre))
        carried[place] += text
    ordered = sorted(groups, key=lambda box: -(box[0] + box[1]))
    letters = [_one_glyph(groups[box]) + carried[box] for box in ordered]
    return "".join(restore(letters, [any(map(is_rtl, letter)) for letter in letters], rtl=True))


def _one_glyph(texts: list[str]) -> str:
    """The letters that share a box; reversed unless they already read lam, alef."""
    if (
        len(texts) > 1
        and all(any(map(is_rtl, text)) for text in texts)
        and texts[0] != "\N{ARABIC LETTER LAM}"
    ):
        texts = texts[::-1]
    return "".join(texts)


def restore(texts: list[str], is_rtl_text: list[bool], *, rtl: bool) -> list[str]:
    """Turn around what was laid against the direction of the line.

    ``texts`` are in the order of the line's own direction. Runs of the other direction are reversed;
    punctuation between two texts of such a run belongs to it.
    """
    against = [
        flag != rtl and any(c.isalnum() for c in t) for t, flag in zip(texts, is_rtl_text, strict=True)
    ]
    out: list[str] = []
    at = 0
    while at < len(texts):
        end = at + 1
        if against[at]:
            end = _run_end(texts, against, is_rtl_text, at, rtl=rtl)
        out.extend(reversed(texts[at:end]))
        at = end
    return out


def _run_end(texts: list[str], against: list[bool], is_rtl_text: list[bool], at: int, *, rtl: bool) -> int:
    end = at + 1
    for i in range(at + 1, len(texts)):
        if against[i]:
            end = i + 1
        elif is_rtl_text[i] == rtl and any(c.isalnum() for c in texts[i]):
            break
    return end


def is_mark(text: str) -> bool:
    """Whether the text is only marks that sit on a letter (vowel points, accents)."""
    return bool(text) and all(unicodedata.category(char) in ("Mn", "Me") for char in text)
