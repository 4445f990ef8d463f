"""Statements + Evidence -> where each is supported, by characters, or that it is not.

A statement found word for word is supported by that span. Any other must be carried by one sentence
or two adjacent ones: enough of its words are there, its meaning is near (embedding), and nothing that
a paraphrase may not change differs: numbers, names, negation, direction, who came before whom. Each of
those vetoes, because a fluent sentence with one wrong number is what a reader would not notice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import cues
from pipeline.evidence import Evidence, Sentence, Terms
from pipeline.locate import Folded, fold, locate
from pipeline.seams import Embedder
from pipeline.types import Citation, Hit, Statement

SUPPORT_THRESHOLD = 0.5
FRAGMENT_WORDS = 4
_CANDIDATES = 4
_WEIGHTS = {"coverage": 5.0, "new_coverage": 3.0, "cosine": 6.0}
_BIAS = -9.0
_CLAUSE = re.compile(
    r"[,;:()\[\]–—]|\b(?:but|although|though|while|whereas|because|unless|except|if|which|who|and|or)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Window:
    """One sentence of a passage, or two adjacent ones, as a source of support."""

    sentences: tuple[Sentence, ...]
    cosine: float

    @property
    def hit(self) -> Hit:
        """The passage."""
        return self.sentences[0].hit

    @property
    def span(self) -> tuple[int, int]:
        """Where it lies in the passage."""
        return self.sentences[0].start, self.sentences[-1].end

    @property
    def text(self) -> str:
        """Its exact words."""
        return self.hit.text[self.span[0] : self.span[1]]

    @property
    def terms(self) -> frozenset[str]:
        """Terms of its sentences."""
        return frozenset().union(*(sentence.terms for sentence in self.sentences))


def ground(
    texts: Sequence[str], question: str, evidence: Evidence, embedder: Embedder, terms: Terms
) -> list[Statement]:
    """One composed :class:`Statement` for each text, with citations where it is supported.

    ``question`` matters for short fragments ("in 1901"), which say something only with it.
    """
    if not texts or not evidence.sentences:
        return [Statement(text, "composed", supported=False, support=0.0) for text in texts]
    hits = list({id(sentence.hit): sentence.hit for sentence in evidence.sentences}.values())
    folded = [(hit, fold(hit.text)) for hit in hits]
    vectors = embedder.embed_queries(list(texts)).vectors
    found = []
    for text, vector in zip(texts, vectors, strict=True):
        if len(cues.words(text)) < FRAGMENT_WORDS:
            found.append(_fragment(text, question, evidence, terms))
            continue
        exact = _exact(text, folded)
        found.append(exact or _paraphrase(text, question, evidence, evidence.vectors @ vector, terms))
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


def _exact(text: str, folded: Sequence[tuple[Hit, Folded]]) -> Statement | None:
    for hit, where in folded:
        span = locate(text, where)
        if span and not _denied_before(hit.text, span[0]):
            return Statement(text, "composed", supported=True, support=1.0, citations=(cite(hit, *span),))
    return None


def _denied_before(text: str, start: int) -> bool:
    """Whether the sentence turns the quoted words around: "shall not be" + "liable for damages"."""
    sentence = re.split(r"[.!?;:。！？]\s|\n\s*\n", text[max(0, start - 200) : start])[-1]
    return cues.negations(cues.words(sentence)) > 0


def _fragment(text: str, question: str, evidence: Evidence, terms: Terms) -> Statement:
    """A short answer is supported by a sentence that contains it and speaks of what was asked."""
    wanted = frozenset(terms(question))
    best: tuple[float, Sentence, tuple[int, int]] | None = None
    for i, sentence in enumerate(evidence.sentences):
        span = locate(text, sentence.text)
        if span is None:
            continue
        nearby = sentence.terms if sentence.first else sentence.terms | evidence.sentences[i - 1].terms
        covered = evidence.coverage(wanted, nearby) if wanted else 0.0
        if best is None or covered > best[0]:
            best = covered, sentence, (sentence.start, sentence.end)
    if best is None or not cues.words(text):
        return Statement(text, "composed", supported=False, support=0.0)
    support, sentence, span = best
    supported = support >= SUPPORT_THRESHOLD
    citations = (cite(sentence.hit, *span),) if supported else ()
    return Statement(text, "composed", supported=supported, support=support, citations=citations)


def _paraphrase(
    text: str,
    question: str,
    evidence: Evidence,
    cosines: np.ndarray[tuple[int], np.dtype[np.float32]],
    terms: Terms,
) -> Statement:
    stems = frozenset(terms(text))
    new = stems - frozenset(terms(question))
    scored = sorted(
        (
            (_support(stems, new, window, evidence), i, window)
            for i, window in enumerate(_windows(evidence, cosines))
        ),
        key=lambda item: (-item[0], item[1]),
    )
    nearest = scored[0][0]
    for support, _, window in scored[:_CANDIDATES]:
        if support < SUPPORT_THRESHOLD:
            break
        if not contradicts(text, stems, window, terms):
            return Statement(
                text, "composed", supported=True, support=support, citations=(cite(window.hit, *window.span),)
            )
    return Statement(text, "composed", supported=False, support=min(nearest, 0.49))


def _windows(evidence: Evidence, cosines: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Iterator[Window]:
    for i, sentence in enumerate(evidence.sentences):
        yield Window((sentence,), float(cosines[i]))
        if not sentence.last and i + 1 < len(evidence.sentences):
            pair = (sentence, evidence.sentences[i + 1])
            yield Window(pair, max(float(cosines[i]), float(cosines[i + 1])))


def _support(stems: frozenset[str], new: frozenset[str], window: Window, evidence: Evidence) -> float:
    features = {
        "coverage": evidence.coverage(stems, window.terms),
        "new_coverage": evidence.coverage(new, window.terms),
        "cosine": window.cosine,
    }
    return 1 / (1 + math.exp(-_BIAS - sum(_WEIGHTS[name] * value for name, value in features.items())))


def contradicts(text: str, stems: frozenset[str], window: Window, terms: Terms) -> str:
    """Why the window cannot support the statement, or an empty string."""
    source = window.text
    if not cues.numbers(text) <= cues.numbers(f"{source} {window.hit.section}"):
        return "a number is not there"
    if missing := _missing_names(text, window, terms):
        return f"{missing} is not there"
    if _negation_differs(text, stems, window, terms):
        return "one of them is negated"
    if cues.opposed(cues.words(text), cues.words(source)):
        return "they point in opposite directions"
    if _reordered(text, source):
        return "names or numbers change places"
    return ""


def _missing_names(text: str, window: Window, terms: Terms) -> str:
    """A name of the statement that the source lacks. One given earlier in the passage will do where
    the source refers back."""
    hit = window.hit
    near = f"{window.text} {hit.title} {hit.section}"
    if cues.refers_back(cues.words(window.text)):
        near = f"{hit.text[: window.span[1]]} {near}"
    there, stems = frozenset(cues.words(near)), frozenset(terms(near))
    for name in cues.names(text):
        own = terms(name)
        if own and name.casefold() not in there and not stems.issuperset(own):
            return name
    return ""


def _negation_differs(text: str, stems: frozenset[str], window: Window, terms: Terms) -> bool:
    ours = cues.negations(cues.words(text))
    source = cues.words(window.text)
    if len(window.terms - stems) <= 0.1 * len(window.terms):
        return ours != cues.negations(source)
    shared = [clause for clause in _CLAUSE.split(window.text) if stems.intersection(terms(clause))]
    theirs = cues.negations(word for clause in shared for word in cues.words(clause))
    return bool(ours) != bool(theirs)


def _reordered(text: str, source: str) -> bool:
    """Whether names, or numbers, common to both stand in another order. A passive may turn names."""
    turned = ("by" in cues.words(text)) != ("by" in cues.words(source))
    return (not turned and _inverted(cues.names(text), cues.names(source))) or _inverted(
        _digits(text), _digits(source)
    )


def _inverted(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    position = {word.casefold(): i for i, word in reversed(list(enumerate(theirs)))}
    once = [word for word in ours if [w.casefold() for w in theirs].count(word.casefold()) == 1]
    places = [position[word.casefold()] for word in dict.fromkeys(once)]
    return places != sorted(places)


def _digits(text: str) -> list[str]:
    return re.findall(r"\d+(?:[.,]\d+)*", text)
