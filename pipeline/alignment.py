"""A statement that repeats a sentence almost word for word: what did it change?

Both are aligned word by word (longest common runs, Ratcliff and Obershelp 1988). Words that only one of
them has are the difference, and a difference in a name, a negation or an opposite changes the meaning
however similar the rest is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from pipeline import cues
from pipeline.numerals import numbers

_NEGATING_PREFIXES = ("un", "in", "im", "ir", "il", "dis", "non", "mis", "anti")


@dataclass(frozen=True, slots=True)
class Difference:
    """Words of the statement (``ours``) that stand where the source has ``theirs``; either may be empty.

    ``initial`` if they begin the statement, where a capital means nothing.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    initial: bool


@dataclass(frozen=True, slots=True)
class Alignment:
    """``share`` of the statement's words stand in the source in the same order. ``kept`` tells for each
    clause of the source which of its words the statement has too."""

    share: float
    differences: tuple[Difference, ...]
    kept: tuple[tuple[tuple[str, bool], ...], ...]

    def change(self) -> str:
        """What was changed that may not be, or an empty string."""
        for difference in self.differences:
            if what := _changed(difference):
                return what
        if any(_loses_negation(clause) for clause in self.kept):
            return "a negation is left out"
        return ""


def align(statement: str, source: str) -> Alignment:
    """Align a statement with one sentence of a source."""
    ours = cues.written_words(statement)
    clauses = [cues.written_words(clause) for clause in cues.clauses(source)]
    theirs = [word for clause in clauses for word in clause]
    matcher = SequenceMatcher(None, [_key(w) for w in theirs], [_key(w) for w in ours], autojunk=False)
    kept = [False] * len(theirs)
    same = 0
    differences = []
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            kept[a:b] = [True] * (b - a)
            same += d - c
        else:
            differences.append(Difference(tuple(ours[c:d]), tuple(theirs[a:b]), c == 0))
    return Alignment(
        same / len(ours) if ours else 0.0, tuple(differences), tuple(_by_clause(clauses, theirs, kept))
    )


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


def _by_clause(
    clauses: Sequence[Sequence[str]], words: Sequence[str], kept: Sequence[bool]
) -> Iterator[tuple[tuple[str, bool], ...]]:
    flags = iter(zip(words, kept, strict=True))
    for clause in clauses:
        yield tuple(next(flags) for _ in clause)


def _key(word: str) -> str:
    return word.casefold().replace("’", "'").removesuffix("'s")
