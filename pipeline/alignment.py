"""A statement that repeats a sentence almost word for word: what did it change, and what did it leave out?

Both are aligned word by word (longest common runs, Ratcliff and Obershelp 1988). Words that only one of
them has are the difference. Another name, a negation or an opposite changes the meaning however similar
the rest is; so does leaving out a condition, or the words that tied the rest together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

from pipeline import cues
from pipeline.numerals import numbers

_NEGATING_PREFIXES = ("un", "in", "im", "ir", "il", "dis", "non", "mis", "anti")


@dataclass(frozen=True, slots=True)
class Difference:
    """Words of the statement (``ours``) that stand where the source has ``theirs``; either may be empty.

    ``first`` and ``last`` say that theirs begin or end the source; ``whole``, that punctuation or the
    source's end stands on both sides of theirs. ``initial`` if ours begin the statement, where a capital
    means nothing.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    first: bool
    last: bool
    whole: bool
    initial: bool


@dataclass(frozen=True, slots=True)
class Alignment:
    """``share`` of the statement's words stand in the source in the same order. ``clauses`` tells, for
    each clause of the source, which of its words the statement has too."""

    share: float
    differences: tuple[Difference, ...]
    clauses: tuple[tuple[tuple[str, bool], ...], ...]

    def change(self) -> str:
        """What was changed or left out that may not be, or an empty string."""
        for difference in self.differences:
            if what := _changed(difference) or _torn(difference):
                return what
        if any(_loses_negation(clause) for clause in self.clauses):
            return "a negation is left out"
        return ""


def align(statement: str, source: str) -> Alignment:
    """Align a statement with one or two sentences of a source."""
    ours = cues.written_words(statement)
    words = cues.placed_words(source)
    theirs = [word.text for word in words]
    matcher = SequenceMatcher(None, [_key(w) for w in theirs], [_key(w) for w in ours], autojunk=False)
    kept = [False] * len(theirs)
    differences = []
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            kept[a:b] = [True] * (b - a)
        else:
            whole = (a == len(words) or words[a].opens) and (b == len(words) or words[b].opens)
            left, right = a == 0, b == len(words)
            differences.append(
                Difference(tuple(ours[c:d]), tuple(theirs[a:b]), left, right, whole, initial=c == 0)
            )
    marked = zip(words, kept, strict=True)
    clauses = [
        tuple((word.text, same) for word, same in clause)
        for _, clause in groupby(marked, key=lambda pair: pair[0].clause)
    ]
    return Alignment(sum(kept) / len(ours) if ours else 0.0, tuple(differences), tuple(clauses))


def _changed(difference: Difference) -> str:
    ours = [_key(word) for word in difference.ours]
    theirs = [_key(word) for word in difference.theirs]
    if cues.negations(ours) > cues.negations(theirs):
        return "a negation is added"
    if cues.opposed(ours, theirs) or any(_prefixed(a, b) or _prefixed(b, a) for a in ours for b in theirs):
        return "an opposite is put in its place"
    if not _same_numbers(" ".join(difference.ours), " ".join(difference.theirs)):
        return "a number is changed"
    if not cues.refers_back(theirs):
        for name in cues.names(" ".join(difference.ours)):
            if _key(name) not in theirs and not (difference.initial and cues.is_common(name)):
                return f"{name} is put in"
    return ""


def _torn(difference: Difference) -> str:
    """Whether what is left out changes what the rest says.

    A part between commas or brackets may go, and the end of a sentence, unless they hold a condition.
    Elsewhere one word may, if it is not one that the rest hangs on ("former", "almost").
    """
    theirs = [_key(word) for word in difference.theirs]
    if cues.is_conditional(theirs) and not cues.is_conditional([_key(word) for word in difference.ours]):
        return "a condition is left out"
    if difference.whole or (difference.last and not difference.ours):
        return "" if theirs[:1] not in (["of"], ["than"]) else "the end is torn off"
    lost = [word for word in difference.theirs if not cues.is_common(word) and not numbers(word)]
    named = any(word[:1].isupper() for word in lost) and not cues.refers_back(theirs)
    if lost and not difference.ours and difference.first:
        return "the beginning is torn off"
    if len(lost) > 1 + bool(difference.ours) or (named and not difference.ours) or cues.is_hedged(theirs):
        return "words in between are left out"
    return ""


def _same_numbers(ours: str, theirs: str) -> bool:
    """Whether no number appears that was not there; "1,000" for "1000" and "5" for "five" may."""
    digits = "".join(c for c in ours if c.isdigit())
    same = digits == "".join(c for c in theirs if c.isdigit())
    return not digits or same or set(numbers(ours)) <= set(numbers(theirs))


def _loses_negation(clause: Sequence[tuple[str, bool]]) -> bool:
    """Whether a clause still has content in the statement, but no longer its negation."""
    lost = any(not kept and cues.negations([_key(word)]) for word, kept in clause)
    return lost and any(kept and not cues.is_common(word) for word, kept in clause)


def _prefixed(word: str, other: str) -> bool:
    return any(word.replace("-", "") == prefix + other for prefix in _NEGATING_PREFIXES) and len(other) > 2


def _key(word: str) -> str:
    return word.casefold().replace("’", "'").removesuffix("'s")
