"""Undo hard wrapping: one paragraph, one line.

Sentences, quotations and search then see words and spaces only. Done for files, whose offsets refer
to the text read from them; never for text that a caller posts, whose offsets are the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.read.headings import rank
from pipeline.read.lines import segments, wrap_width

_BLANK = re.compile(r"\n[ \t\v]*(?:\n[ \t\v]*)+")
_CJK = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")


def reflow(text: str) -> str:
    """Join the lines of wrapped paragraphs and list items; leave every other line as it is."""
    lines = text.split("\n")
    width = wrap_width(lines)
    words = _vocabulary(text) if width else frozenset()
    return "\n\n".join(_run(run.split("\n"), width, words) for run in _BLANK.split(text.strip("\n")))


def _run(run: list[str], width: int, words: frozenset[str]) -> str:
    run = [line.rstrip(" \t\v") for line in run]
    body = 1 if len(run) > 1 and rank(run[0], alone=False) else 0
    kept = run[:body]
    for segment in segments(run[body:], width):
        lines = run[body + segment.first : body + segment.last]
        kept += [_joined(lines, words)] if segment.kind in ("prose", "list_item") else lines
    return "\n".join(kept)


def _joined(lines: Sequence[str], words: frozenset[str]) -> str:
    joined = lines[0] if len(lines) == 1 else lines[0].lstrip()
    for line in map(str.lstrip, lines[1:]):
        if joined.endswith("--") or _CJK.match(joined[-1:]):
            joined += line
        elif joined.endswith("-") and joined[-2:-1].isalpha() and line[:1].islower():
            joined = _rejoined(joined, line, words)
        else:
            joined += " " + line
    return joined


def _rejoined(joined: str, line: str, words: frozenset[str]) -> str:
    """A hyphen at a line's end divides a word if the undivided word occurs elsewhere; else it is its own."""
    head, tail = re.split(r"[\W\d_]", joined[:-1])[-1], re.split(r"[\W\d_]", line, maxsplit=1)[0]
    whole = f"{head}{tail}".lower()
    return (joined[:-1] if whole in words else joined) + line


def _vocabulary(text: str) -> frozenset[str]:
    if not re.search(r"[^\W\d_]-\n", text):
        return frozenset()
    return frozenset(re.findall(r"[^\W\d_]+", text.lower()))
