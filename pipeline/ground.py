"""Statements + Evidence -> where each is supported, by characters, or that it is not.

A statement found word for word is supported by that span. One that repeats a sentence almost word for
word is judged by that sentence alone. Any other must be carried by one sentence or two adjacent ones:
its words are there, its meaning is near (embedding), and nothing vetoes (:mod:`pipeline.vetoes`).
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
from pipeline.evidence import Evidence, Sentence, Terms
from pipeline.locate import Folded, fold, locate
from pipeline.seams import Embedder
from pipeline.types import Citation, Hit, Statement
from pipeline.vetoes import NEAR_VERBATIM_SHARE, veto

SUPPORT_THRESHOLD = 0.5
FRAGMENT_WORDS = 4
_CANDIDATES = 4
_WEIGHTS = {"coverage": 5.0, "new_coverage": 3.0, "cosine": 6.0}
_BIAS = -9.85


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
    texts: Sequence[str], question: str, evidence: Evidence, embedder: Embedder, terms: Terms
) -> list[Statement]:
    """One composed :class:`Statement` for each text, with citations where it is supported.

    ``question`` matters for short fragments ("in 1901"), which say something only with it, and for what
    is new in a statement: words it repeats from the question prove nothing.
    """
    if not texts or not evidence.sentences:
        return [_unsupported(text, 0.0) for text in texts]
    hits = list({id(sentence.hit): sentence.hit for sentence in evidence.sentences}.values())
    folded = [(hit, fold(hit.text)) for hit in hits]
    vectors = embedder.embed_queries(list(texts)).vectors
    found = []
    for text, vector in zip(texts, vectors, strict=True):
        if len(cues.words(text)) < FRAGMENT_WORDS:
            found.append(_fragment(text, question, evidence, terms))
        else:
            windows = list(_windows(text, question, evidence, evidence.vectors @ vector, terms))
            found.append(
                _exact(text, folded)
                or _near_verbatim(text, windows, terms)
                or _paraphrase(text, windows, terms)
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
    for hit, where in folded:
        span = locate(text, where)
        if span and not _denied_before(hit.text, span[0]):
            return _supported(text, 1.0, hit, span)
    return None


def _denied_before(text: str, start: int) -> bool:
    """Whether the sentence turns the quoted words around: "shall not be" + "liable for damages"."""
    sentence = re.split(r"[.!?;:。！？]\s|\n\s*\n", text[max(0, start - 200) : start])[-1]
    return cues.negations(cues.words(sentence)) > 0


def _fragment(text: str, question: str, evidence: Evidence, terms: Terms) -> Statement:
    """A short answer is supported by a sentence that contains it and speaks of what was asked."""
    wanted = frozenset(terms(question))
    best = 0.0, evidence.sentences[0]
    for i, sentence in enumerate(evidence.sentences):
        if cues.words(text) and locate(text, sentence.text):
            nearby = sentence.terms if sentence.first else sentence.terms | evidence.sentences[i - 1].terms
            covered = evidence.coverage(wanted, nearby) if wanted else 0.0
            best = max(best, (covered, sentence), key=lambda found: found[0])
    support, sentence = best
    if support < SUPPORT_THRESHOLD:
        return _unsupported(text, support)
    return _supported(text, support, sentence.hit, (sentence.start, sentence.end))


def _near_verbatim(text: str, windows: Sequence[_Window], terms: Terms) -> Statement | None:
    """The verdict of the sentences that the statement nearly repeats; None if there are none.

    Were others asked as well, a number that was changed might be found next door.
    """
    singles = sorted((w for w in windows if len(w.sentences) == 1), key=lambda w: -w.support)[:_CANDIDATES]
    repeated = [w for w in singles if align(text, w.sentences[0].text).share >= NEAR_VERBATIM_SHARE]
    return _verdict(text, repeated, terms) if repeated else None


def _paraphrase(text: str, windows: Sequence[_Window], terms: Terms) -> Statement:
    return _verdict(text, sorted(windows, key=lambda w: -w.support)[:_CANDIDATES], terms)


def _verdict(text: str, windows: Sequence[_Window], terms: Terms) -> Statement:
    for window in windows:
        if window.support >= SUPPORT_THRESHOLD and not veto(text, window.hit, window.span, terms):
            return _supported(text, window.support, window.hit, window.span)
    # What was vetoed is not half supported, however similar.
    return _unsupported(text, min(windows[0].support, SUPPORT_THRESHOLD / 2))


def _windows(
    text: str, question: str, evidence: Evidence, cosines: NDArray[np.float32], terms: Terms
) -> Iterator[_Window]:
    stems = frozenset(terms(text))
    new = stems - frozenset(terms(question))
    for i, sentence in enumerate(evidence.sentences):
        yield _Window((sentence,), _support(stems, new, sentence.terms, float(cosines[i]), evidence))
        if not sentence.last and i + 1 < len(evidence.sentences):
            after = evidence.sentences[i + 1]
            cosine = float(max(cosines[i], cosines[i + 1]))
            yield _Window(
                (sentence, after), _support(stems, new, sentence.terms | after.terms, cosine, evidence)
            )


def _support(
    stems: frozenset[str], new: frozenset[str], source: frozenset[str], cosine: float, evidence: Evidence
) -> float:
    features = {
        "coverage": evidence.coverage(stems, source),
        "new_coverage": evidence.coverage(new, source),
        "cosine": cosine,
    }
    return 1 / (1 + math.exp(-_BIAS - sum(_WEIGHTS[name] * value for name, value in features.items())))


def _supported(text: str, support: float, hit: Hit, span: tuple[int, int]) -> Statement:
    return Statement(text, "composed", supported=True, support=support, citations=(cite(hit, *span),))


def _unsupported(text: str, support: float) -> Statement:
    return Statement(text, "composed", supported=False, support=support)
