"""Aozora Bunko's notation for Japanese books: readings (ruby), emphasis and layout notes.

The readings are left out. ``坊《ぼ》っちゃん`` is searched for as ``坊っちゃん``, and a reading in the
middle of a word breaks both the words a model sees and the words a citation quotes.
"""

from __future__ import annotations

import re

_LEGEND = re.compile(r"-{20,}\n【テキスト中に現れる記号について】.*?\n-{20,}\n", re.DOTALL)
_RUBY = re.compile(r"《[\u3040-\u30ff\u3005ー・　 ]{1,30}》")
_NOTE = re.compile(r"［＃[^］]*］")
_HEADING = re.compile(r"［＃[^］]*([大中小])見出し］")
_RANKS = {"大": 1, "中": 2, "小": 3}
_MIN_RUBY = 5


def is_aozora(text: str) -> bool:
    """Whether the text explains this notation, or plainly uses it."""
    return bool(_LEGEND.search(text[:5000])) or len(_RUBY.findall(text[:50_000])) >= _MIN_RUBY


def plain(text: str) -> tuple[str, dict[str, int]]:
    """The text as printed without readings and notes, and its headings with their levels."""
    headings: dict[str, int] = {}
    lines = []
    for line in _LEGEND.sub("", text, count=1).split("\n"):
        marked = _HEADING.search(line)
        printed = _NOTE.sub("", _RUBY.sub("", line)).replace("｜", "")
        if marked and printed.strip():
            headings[printed.strip()] = _RANKS[marked[1]]
        lines.append(printed)
    return "\n".join(lines), headings
