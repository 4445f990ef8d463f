"""What a statement may not change of its source: numbers, names, negation, direction, order.

Each check is a veto, because a fluent sentence with one wrong number is what a reader would not notice.
They err towards refusing: a true paraphrase refused costs one sentence, a false one costs trust.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pipeline import cues
from pipeline.alignment import align
from pipeline.evidence import Terms
from pipeline.numerals import numbers
from pipeline.types import Hit

NEAR_VERBATIM_SHARE = 0.7


_PASSIVE = re.compile(r"\b\w+(?:ed|en|wn|pt|ght|ld|de|ung|un|ut) by\b", re.IGNORECASE)


def veto(statement: str, hit: Hit, span: tuple[int, int], terms: Terms) -> str:
    """Why ``hit.text[start:end]`` cannot support the statement, or an empty string."""
    source = hit.text[slice(*span)]
    before = known_before(hit, *span)
    if Counter(numbers(statement)) - Counter(numbers(f"{source} {hit.section}")):
        return "a number is not there"
    if missing := _missing_name(statement, f"{before} {source}", terms):
        return f"{missing} is not there"
    if _reordered(statement, source):
        return "names or numbers change places"
    alignment = align(statement, source, terms)
    if alignment.share >= NEAR_VERBATIM_SHARE:
        known = frozenset(terms(before))
        return alignment.change(lambda word: known.issuperset(terms(word)))
    if _negation_differs(statement, source, terms):
        return "one of them is negated"
    opposed = cues.opposed(cues.words(statement), cues.words(source))
    return "they point in opposite directions" if opposed else ""


def known_before(hit: Hit, start: int, end: int) -> str:
    """What a reader of ``hit.text[start:end]`` knows already: the headings, and what went before in the
    passage where the words refer back to it."""
    before = hit.text[:start] if cues.refers_back(cues.words(hit.text[start:end])) else ""
    return f"{hit.title} {hit.section} {before}"


def _missing_name(statement: str, known: str, terms: Terms) -> str:
    """A name of the statement that the source lacks."""
    there, stems = frozenset(cues.words(known)), frozenset(terms(known))
    for name in cues.names(statement):
        if name.casefold() not in there and not cues.is_common(name) and not stems.issuperset(terms(name)):
            return name
    return ""


def _negation_differs(statement: str, source: str, terms: Terms) -> bool:
    """Whether only one is negated, counting those clauses of the source that the statement is about."""
    stems = frozenset(terms(statement))
    shared = [clause for clause in cues.clauses(source) if stems.intersection(terms(clause))]
    theirs = cues.negations(word for clause in shared for word in cues.words(clause))
    return bool(cues.negations(cues.words(statement))) != bool(theirs)


def _reordered(statement: str, source: str) -> bool:
    """Whether names, or numbers, common to both stand in another order. A passive may turn names."""
    turned = bool(_PASSIVE.search(statement)) != bool(_PASSIVE.search(source))
    names = not turned and _inverted(cues.names(statement), cues.names(source))
    return names or _inverted(_digits(statement), _digits(source))


def _inverted(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether words that stand once in ``theirs`` come in another order in ``ours``."""
    folded = [word.casefold() for word in theirs]
    once = [word.casefold() for word in ours if folded.count(word.casefold()) == 1]
    places = [folded.index(word) for word in dict.fromkeys(once)]
    return places != sorted(places)


def _digits(text: str) -> list[str]:
    return re.findall(r"\d+(?:[.,]\d+)*", text)
