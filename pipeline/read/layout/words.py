"""Lines of a block as running text: words hyphenated at line ends joined, spaces only where they belong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from pipeline.read.layout.glyphs import SOFT_HYPHEN

_HYPHENS = ("-", "\N{HYPHEN}", SOFT_HYPHEN)
_WORD = re.compile(r"[^\W\d_]+(?:[-\N{HYPHEN}][^\W\d_]+)*")
_STEM = re.compile(rf"([-\N{{HYPHEN}}]?)([^\W\d_]+)[-\N{{HYPHEN}}{SOFT_HYPHEN}]$")
_HEAD = re.compile(r"[^\W\d_]+")
_TIGHT = re.compile(r"\w[–—]$|\S@$|(?:://|www\.)\S*[/_.=&?%-]$|://$")
_KNOWN = 2


class Joiner:
    """Joins lines. It knows the words of the whole document, which tell "long-term" from "docu-ment"."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._words: Counter[str] = Counter()
        for line in lines:
            found = _WORD.findall(line.lower())
            self._words.update(found[:-1] if line.endswith(_HYPHENS) else found)

    def join(self, lines: Sequence[str]) -> tuple[str, list[int]]:
        """The text, and the offset at which each line begins (with its end as one more)."""
        text = ""
        starts = []
        for i, raw in enumerate(lines):
            line = _plain(raw, last=i + 1 == len(lines))
            if text:
                text = self._seam(text, line)
            starts.append(len(text))
            text += line
        return text, [*starts, len(text)]

    def _seam(self, text: str, line: str) -> str:
        """What stands before ``line``: ``text`` with a space, or with its hyphen kept or dropped."""
        stem, head = _STEM.search(text[-60:]), _HEAD.match(line)
        if stem and head:
            return text[:-1] + ("" if self._is_one_word(stem, head[0], text[-1]) else "-")
        if text.endswith(_HYPHENS) and line[:1].isalnum() and text[-2:-1].isalnum():
            return text[:-1] + "-"
        if text.endswith(SOFT_HYPHEN):
            text = text[:-1] + "-"
        if _TIGHT.search(text[-200:]) and line[:1].isalnum():
            return text
        return text if _unspaced(text[-1]) and _unspaced(line[:1]) else text + " "

    def _is_one_word(self, stem: re.Match[str], head: str, hyphen: str) -> bool:
        if stem[1] or not head[0].islower():  # state-of-the-art, Anglo-Saxon
            return False
        first, second = stem[2].lower(), head.lower()
        joined, compound = self._words[first + second], self._words[f"{first}-{second}"]
        if joined or compound:
            return joined >= compound
        both = (
            min(self._words[first], self._words[second]) >= _KNOWN and min(len(first), len(second)) > _KNOWN
        )
        return hyphen == SOFT_HYPHEN or not both


def _plain(line: str, *, last: bool) -> str:
    """Without soft hyphens, but for one that ends the line; at the end of a block it is a hyphen."""
    body, end = (line[:-1], line[-1]) if line.endswith(SOFT_HYPHEN) else (line, "")
    return body.replace(SOFT_HYPHEN, "") + ("-" if end and last else end)


def _unspaced(char: str) -> bool:
    """Scripts that set no space between words: Thai, Lao, Khmer, Burmese, kana, Han; and their marks."""
    return (
        "\u0e00" <= char <= "\u0eff"
        or "\u1000" <= char <= "\u109f"
        or "\u1780" <= char <= "\u17ff"
        or "\u2e80" <= char <= "\u9fff"
        or "\uf900" <= char <= "\ufaff"
        or "\uff00" <= char <= "\uffef"
    )
