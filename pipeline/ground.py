"""Statements + Evidence -> where each is supported, by characters, or that it is not.

A statement found word for word is supported by that span. One that repeats a sentence almost word for
word is judged by that sentence alone. Any other, if paraphrases are let through at all, must be carried
by one sentence or two adjacent ones: its words are there, its meaning is near (embedding), and nothing
vetoes (:mod:`pipeline.vetoes`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import cues
from pipeline.alignment import align
from pipeline.evidence import Evidence, Reader, Sentence, Terms
from pipeline.locate import Folded, fold, locate
from pipeline.numerals import numbers
from pipeline.sentences import sentences
from pipeline.types import Citation, Hit, Statement
from pipeline.vetoes import NEAR_VERBATIM_SHARE, known_before, veto

SUPPORT_THRESHOLD = 0.5
FRAGMENT_WORDS = 4
FRAGMENT_COVERAGE = 0.8
_CANDIDATES = 4
_STOPS = ".!?;。！？"
_STOPPED = re.compile(rf"(?:\w{{3}}[{_STOPS}:][\"”’)\]]*|^\W*\w{{1,4}}[.)])\s+$")  # or a number: "4. "
_WEIGHTS = {"coverage": 5.0, "new_coverage": 3.0, "likeness": 3.9}
_BIAS = -9.55


@dataclass(frozen=True, slots=True)
class _Window:
    """One sentence of a passage, or two adjacent ones, as a source of support."""

    sentences: tuple[Sentence, ...]
    support: float

    @property
    def hit(self) -> Hit:
        return self.sentences[0].hit

    @property
    def span(self) -> tuple[int, int]:
        return self.sentences[0].start, self.sentences[-1].end


def ground(
    texts: Sequence[str], question: str, evidence: Evidence, reader: Reader, *, paraphrases: bool = False
) -> list[Statement]:
    """One composed :class:`Statement` for each text, with citations where it is supported.

    ``question`` matters for short fragments ("in 1901"), which say something only with it, and for what
    is new in a statement: words it repeats from the question prove nothing. ``paraphrases`` lets other
    words than the source's be supported by coverage and likeness; neither can tell who did what to whom,
    so that is for models that are seldom wrong (of a small model's paraphrases let through, a third was).
    """
    sayings = [text for text in texts if cues.words(text)]
    if not sayings or not evidence.sentences:
        return [_unsupported(text, 0.0) for text in texts]
    hits = list({id(sentence.hit): sentence.hit for sentence in evidence.sentences}.values())
    folded = [(hit, fold(hit.text)) for hit in hits]
    vectors = dict(zip(sayings, reader.similarity.vectors(sayings), strict=True))
    found = []
    for text in texts:
        if text not in vectors:
            found.append(_unsupported(text, 0.0))
        elif len(cues.words(text)) < FRAGMENT_WORDS:
            found.append(_fragment(text, question, evidence, reader.terms))
        else:
            likeness = reader.similarity.between(evidence.vectors, vectors[text])
            windows = list(_windows(text, question, evidence, likeness, reader.terms))
            found.append(
                _exact(text, folded) or _judged(text, windows, reader.terms, paraphrases=paraphrases)
            )
    return found


def cite(hit: Hit, start: int, end: int) -> Citation:
    """Citation of ``hit.text[start:end]``, with white space at its ends left out."""
    raw = hit.text[start:end]
    start += len(raw) - len(raw.lstrip())
    quote = raw.strip()
    return Citation(
        document_id=hit.document_id,
        version=hit.version,
        title=hit.title,
        chunk_id=hit.chunk_id,
        start=hit.start + start,
        end=hit.start + start + len(quote),
        quote=quote,
        page_start=hit.page_start,
        page_end=hit.page_end,
    )


def quoted(hit: Hit, start: int, end: int) -> Statement:
    """The words ``hit.text[start:end]`` as a statement, on one line."""
    citation = cite(hit, start, end)
    text = " ".join(citation.quote.split())
    return Statement(text, "quoted", supported=True, support=1.0, citations=(citation,))


def _exact(text: str, folded: Sequence[tuple[Hit, Folded]]) -> Statement | None:
    """Supported by whole sentences that say exactly this. Part of one could leave out what matters
    ("shall not be" before "liable for damages"), so that is judged like any near repetition."""
    for hit, where in folded:
        span = locate(text, where)
        if span and _is_whole(hit.text, *span):
            return _supported(text, 1.0, hit, span)
    return None


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether sentences begin and end here, by the splitter or by plain punctuation where it saw none."""
    spans = sentences(text)
    began = max(a for a, _ in spans if a <= start)
    ended = min(b for _, b in spans if b >= end)
    begins = not cues.words(text[began:start]) or _STOPPED.search(text[began:start])
    return bool(begins) and (not cues.words(text[end:ended]) or text[end : end + 1] in _STOPS)


def _fragment(text: str, question: str, evidence: Evidence, terms: Terms) -> Statement:
    """A short answer is supported by a sentence that contains it and speaks of all that was asked."""
    wanted = frozenset(terms(question))
    best = 0.0, evidence.sentences[0]
    for i, sentence in enumerate(evidence.sentences):
        if not wanted.issuperset(terms(text)) and locate(text, sentence.text):
            nearby = sentence.terms if sentence.first else sentence.terms | evidence.sentences[i - 1].terms
            covered = evidence.coverage(wanted, nearby) if wanted else 0.0
            best = max(best, (covered, sentence), key=lambda found: found[0])
    covered, sentence = best
    if covered < FRAGMENT_COVERAGE:
        return _unsupported(text, min(covered, SUPPORT_THRESHOLD / 2))
    return _supported(text, covered, sentence.hit, (sentence.start, sentence.end))


def _judged(text: str, windows: Sequence[_Window], terms: Terms, *, paraphrases: bool) -> Statement:
    """Supported by the best windows, or not. Sentences that the statement nearly repeats judge alone:
    were others asked as well, a number that was changed might be found next door."""
    best_first = sorted(windows, key=lambda window: -window.support)
    singles = [window for window in best_first if len(window.sentences) == 1][:_CANDIDATES]
    repeated = [w for w in singles if align(text, w.sentences[0].text, terms).share >= NEAR_VERBATIM_SHARE]
    if not repeated and not paraphrases:
        return _unsupported(text, _short_of_support(best_first[0]))
    return _verdict(text, repeated or best_first[:_CANDIDATES], terms)


def _verdict(text: str, windows: Sequence[_Window], terms: Terms) -> Statement:
    for window in windows:
        if window.support >= SUPPORT_THRESHOLD and not veto(text, window.hit, window.span, terms):
            return _supported(text, window.support, window.hit, window.span)
    return _unsupported(text, _short_of_support(windows[0]))


def _short_of_support(window: _Window) -> float:
    # What was vetoed is not half supported, however similar.
    return min(window.support, SUPPORT_THRESHOLD / 2)


def _windows(
    text: str, question: str, evidence: Evidence, likeness: NDArray[np.float32], terms: Terms
) -> Iterator[_Window]:
    stems = frozenset(terms(text))
    new = stems - frozenset(terms(question))
    names = frozenset(stem for name in cues.names(text) for stem in terms(name))
    numeric = frozenset(stem for word in cues.words(text) if numbers(word) for stem in terms(word))
    for i, sentence in enumerate(evidence.sentences):
        # A name that headings or, for a pronoun, earlier sentences supply is there as well; whether the
        # numbers are, however written, is for the vetoes.
        known = names.intersection(terms(known_before(sentence.hit, sentence.start, sentence.end)))
        source = sentence.terms | known | numeric
        yield _Window((sentence,), _support(stems, new, source, float(likeness[i]), evidence))
        if not sentence.last and i + 1 < len(evidence.sentences):
            after = evidence.sentences[i + 1]
            nearer = float(max(likeness[i], likeness[i + 1]))
            yield _Window((sentence, after), _support(stems, new, source | after.terms, nearer, evidence))


def _support(
    stems: frozenset[str], new: frozenset[str], source: frozenset[str], likeness: float, evidence: Evidence
) -> float:
    features = {
        "coverage": evidence.coverage(stems, source),
        "new_coverage": evidence.coverage(new, source),
        "likeness": likeness,
    }
    return 1 / (1 + math.exp(-_BIAS - sum(_WEIGHTS[name] * value for name, value in features.items())))


def _supported(text: str, support: float, hit: Hit, span: tuple[int, int]) -> Statement:
    return Statement(text, "composed", supported=True, support=support, citations=(cite(hit, *span),))


def _unsupported(text: str, support: float) -> Statement:
    return Statement(text, "composed", supported=False, support=support)
