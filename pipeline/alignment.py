"""A statement that repeats a sentence almost word for word: what did it put in, move and leave out?

Both are aligned word by word (longest common runs, Ratcliff and Obershelp 1988), forms of a word counting
as the same unless their tense differs. A true repetition is then its source with words left out, no more:
whatever it has in another place, or instead, or in addition, changes the meaning however small the word
("or", "from", "must"). Excepted are articles and the like, a name for the pronoun that stands for it, and
an adverbial at the other end of the sentence. And what is left out may be no condition, and not what ties
the rest together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby, permutations

from pipeline import cues
from pipeline.evidence import Terms
from pipeline.numerals import numbers


@dataclass(frozen=True, slots=True)
class Difference:
    """Words of the statement (``ours``) that stand where the source has ``theirs``; either may be empty.

    ``initial`` and ``final`` say that ours begin or end the statement, ``first`` that theirs begin the
    source; ``after`` is its next word, empty if theirs end it. ``whole`` says that punctuation or the end of
    the source stands on both sides of theirs.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    initial: bool
    final: bool
    first: bool
    after: str
    whole: bool


@dataclass(frozen=True, slots=True)
class Alignment:
    """``share`` of the statement's words stand in the source in the same order. ``clauses`` tells, for
    each clause of the source, which of its words the statement has too."""

    share: float
    differences: tuple[Difference, ...]
    clauses: tuple[tuple[tuple[str, bool], ...], ...]

    def change(self, is_known: Callable[[str], bool]) -> str:
        """What was put in, moved or left out that may not be, or an empty string.

        ``is_known`` tells of a word whether it was read before the source: a pronoun may stand for it.
        """
        for difference in self._unmoved():
            if what := _put_in(difference, is_known) or _torn(difference):
                return what
        if any(_loses_negation(clause) for clause in self.clauses):
            return "a negation is left out"
        return ""

    def _unmoved(self) -> Sequence[Difference]:
        """The differences, but for an adverbial that goes from one end of a simple sentence to the other."""
        if sum(any(same for _, same in clause) for clause in self.clauses) == 1:
            for here, there in permutations(self.differences, 2):
                if _is_moved(here, there):
                    return [each for each in self.differences if each not in (here, there)]
        return self.differences


def align(statement: str, source: str, terms: Terms) -> Alignment:
    """Align a statement with one or two sentences of a source; ``terms`` gives the stems of words."""
    ours = cues.written_words(cues.without_lead_in(statement))
    words = cues.placed_words(source)
    theirs = [word.text for word in words]
    matcher = SequenceMatcher(None, _kinds(theirs, terms), _kinds(ours, terms), autojunk=False)
    kept = [False] * len(theirs)
    differences = []
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            kept[a:b] = [True] * (b - a)
        else:
            differences.append(
                Difference(
                    tuple(ours[c:d]),
                    tuple(theirs[a:b]),
                    initial=c == 0,
                    final=d == len(ours),
                    first=a == 0,
                    after="".join(theirs[b : b + 1]),
                    whole=(a == len(words) or words[a].opens) and (b == len(words) or words[b].opens),
                )
            )
    marked = zip(words, kept, strict=True)
    clauses = [
        tuple((word.text, same) for word, same in clause)
        for _, clause in groupby(marked, key=lambda pair: pair[0].clause)
    ]
    return Alignment(sum(kept) / len(ours) if ours else 0.0, tuple(differences), tuple(clauses))


def _put_in(difference: Difference, is_known: Callable[[str], bool]) -> str:
    """What ours say that theirs do not. As both are aligned, none of our words is among theirs."""
    theirs = [_key(word) for word in difference.theirs]
    if not _same_numbers(" ".join(difference.ours), " ".join(difference.theirs)):
        return "a number is changed"
    for word in difference.ours:
        named = cues.refers_back(theirs) and not cues.is_common(word) and is_known(word)
        if not (cues.is_particle(_key(word)) or numbers(word) or named):
            return f"{word} is put in"
    return ""


def _torn(difference: Difference) -> str:
    """Whether what is left out changes what the rest says.

    A part between commas or brackets may go, and the end of a sentence, unless they hold a condition.
    Elsewhere one word may that goes with the next, if it is no name and takes nothing back ("almost").
    """
    theirs = [_key(word) for word in difference.theirs]
    if cues.is_conditional(theirs):
        return "a condition is left out"
    if difference.whole or (difference.final and not difference.after):
        return "" if theirs[:1] not in (["of"], ["than"], ["or"]) else "the end is torn off"
    if tie := next(filter(cues.is_tie, theirs), ""):
        return f"{tie} is left out"
    ours = [word for word in difference.ours if not cues.is_particle(_key(word))]
    lost = [
        word for word in difference.theirs if not cues.is_spare(_key(word)) and not (ours and numbers(word))
    ]
    if lost and difference.first:
        return "the beginning is torn off"
    named = any(word[:1].isupper() for word in lost)
    hangs = ours or named or len(lost) > 1 or cues.is_common(difference.after)
    return "words in between are left out" if cues.is_hedged(theirs) or (lost and hangs) else ""


def _is_moved(here: Difference, there: Difference) -> bool:
    """Whether words that begin with a preposition ("in 2020") are only here, at one end of the statement, and
    were only there, at the other end of the source."""
    ends = (here.initial and not there.after) or (here.final and there.first)
    ours, theirs = ([_key(word) for word in side] for side in (here.ours, there.theirs))
    bare = not here.theirs and not there.ours
    return bare and ends and ours == theirs and cues.is_preposition(ours[0])


def _same_numbers(ours: str, theirs: str) -> bool:
    """Whether no number appears that was not there; "1,000" for "1000" and "5" for "five" may."""
    digits = "".join(c for c in ours if c.isdigit())
    same = digits and digits == "".join(c for c in theirs if c.isdigit())
    return bool(same) or not Counter(numbers(ours)) - Counter(numbers(theirs))


def _loses_negation(clause: Sequence[tuple[str, bool]]) -> bool:
    """Whether a clause still has content in the statement, but no longer its negation."""
    lost = any(not kept and cues.negations([_key(word)]) for word, kept in clause)
    return lost and any(kept and not cues.is_common(word) for word, kept in clause)


def _kinds(words: Sequence[str], terms: Terms) -> list[str]:
    return [_kind(word, terms) for word in words]


def _kind(word: str, terms: Terms) -> str:
    """What makes two words count as the same: their number or stem, and whether it is past or possessive."""
    key = _key(word)
    if value := numbers(key):
        return value[0]
    ending = "+ed" if key.endswith("ed") else "+s" if len(key) < len(word) else ""
    return (" ".join(terms(key)) or cues.same(key)) + ending


def _key(word: str) -> str:
    return word.casefold().replace("’", "'").removesuffix("'s")
