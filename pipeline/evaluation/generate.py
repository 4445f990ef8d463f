"""Questions with known evidence out of any documents, so that recall can be measured without labels.

Five kinds. *Needles* and *passkeys* are sentences put into the text (into copies: the documents themselves
stay as they are). *Cloze* questions quote a sentence without its most telling word. *Heading* questions are
headings, answered by what stands under them. *Definition* questions ask for what the text says a thing is.
The last three are easier than what people ask, because they share words with their answers: they tell
documents and places in them apart, not good retrieval from excellent.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pipeline.errors import InvalidRequestError
from pipeline.evaluation.dataset import EvaluationSet, Question, SetDocument
from pipeline.evaluation.protocols import hidden
from pipeline.sentences import sentences
from pipeline.types import Document

KINDS = ("needle", "passkey", "cloze", "heading", "definition")

_Found = tuple[str, str, str, int, int]  # kind, question, answer, start, end
_SECTION_CHARS = 1_500  # of a section, so much counts as its answer
_CLOZE_WORDS = (10, 45)
_WORD = re.compile(r"[^\W_][\w'’-]*")
_DEFINITION = re.compile(
    r"(?:The |An? )?[“\"]?(?P<term>[A-Z][\w-]*(?: [\w-]+){0,3})[”\"]? "
    r"(?:(?:shall )?means?|is defined as|refers to|is (?:an?|the(?! (?:most|best|only|same|first|last))))\b",
)
# What no name of a thing holds, but half a clause does ("For the skier there is a").
_CLAUSE = re.compile(
    r"^(?:of|the|and)\b|(?<![\w-])(?:"
    r"about|above|after|again|all|also|although|among|an|another|any|are|as|at|be|because|been|before|"
    r"below|between|both|but|by|can|could|did|do|does|down|each|either|every|few|for|from|had|has|"
    r"have|he|her|here|hers|his|how|however|i|if|in|into|is|it|its|just|many|may|me|might|mine|more|"
    r"most|much|must|my|neither|next|no|nor|not|now|on|once|one|only|or|other|others|our|ours|out|"
    r"over|perhaps|same|shall|she|should|since|so|some|such|than|that|their|theirs|them|then|there|"
    r"therefore|these|they|this|those|though|thus|to|today|too|under|until|up|upon|us|was|we|were|"
    r"what|when|where|whether|which|while|who|whom|whose|why|will|with|within|without|would|yes|yet|"
    r"you|your|yours"
    r"|\d+)(?![\w-])",
    re.IGNORECASE,
)


def generate(documents: Sequence[Document], *, each: int = 4, seed: int = 0) -> EvaluationSet:
    """A set with up to ``each`` questions of each kind a document, evenly spread over its length.

    ``documents`` have ids; the same documents and seed give the same set. Raises InvalidRequestError if
    nothing can be asked.
    """
    if each < 1:
        raise InvalidRequestError(f"each is {each}.", remedy="Ask for 1 or more questions of a kind.")
    rare = Counter(word for d in documents for word in set(_words(d.text)))
    kept: list[SetDocument] = []
    questions: list[Question] = []
    for number, document in enumerate(documents):
        found = [
            *_spread(_cloze(document, rare, len(documents)), each),
            *_spread(_headings(document), each),
            *_spread(_definitions(document), each),
        ]
        text, hidden_ones = _with_hidden(document, number, each, seed)
        moved = [_moved(one, hidden_ones) for one in found]
        for kind, question, answer, start, end in (*hidden_ones, *moved):
            questions.append(
                Question(
                    f"{kind}-{number}-{sum(q.kind == kind for q in questions)}",
                    question,
                    answers=(answer,) if answer else (),
                    kind=kind,
                    relevance={document.id: 1},
                    spans={document.id: ((start, end),)},
                )
            )
        kept.append(SetDocument(document.id, text, document.title))
    if not questions:
        raise InvalidRequestError("Nothing can be asked of these documents.", remedy="Give longer texts.")
    return EvaluationSet("generated", tuple(kept), tuple(_once(questions)))


def _with_hidden(document: Document, number: int, each: int, seed: int) -> tuple[str, list[_Found]]:
    """The text with needles and passkeys at the beginnings of sentences, and where they stand."""
    rng = random.Random(f"{seed} {document.id}")  # noqa: S311 - which sentences, no secret
    starts = [start for start, _ in sentences(document.text)]
    count = min(each, max(0, len(starts) - 1))
    text, added, found = document.text, 0, []
    for i in range(count):
        at = starts[(2 * i + 1) * len(starts) // (2 * count)]
        kinds = hidden(number * each + i, rng)
        kind, sentence, question, answer = kinds[i % 2]
        start = at + added
        text = f"{text[:start]}{sentence} {text[start:]}"
        found.append((kind, question, answer, start, start + len(sentence)))
        added += len(sentence) + 1
    return text, found


def _moved(one: _Found, inserted: Sequence[_Found]) -> _Found:
    """Where a span of the original stands once the insertions are made; one inside it makes it longer."""
    kind, question, answer, start, end = one
    for _, _, _, at, stop in inserted:
        size = stop - at + 1
        start += size if at <= start else 0
        end += size if at < end else 0
    return kind, question, answer, start, end


def _cloze(document: Document, rare: Counter[str], documents: int) -> Iterator[_Found]:
    """Sentences with a word that few documents have, a number or a name first of all."""
    for start, end in sentences(document.text):
        sentence = document.text[start:end]
        words = list(_WORD.finditer(sentence))
        if not _CLOZE_WORDS[0] <= len(words) <= _CLOZE_WORDS[1] or "\n\n" in sentence:
            continue
        told = [m for m in words[1:] if len(m[0]) > 3 or m[0].isdigit()]
        if told:
            best = min(told, key=lambda m: (rare[m[0].casefold()], m[0].islower(), -len(m[0])))
            if documents < 3 or rare[best[0].casefold()] <= max(1, documents // 3):
                asked = f"{sentence[: best.start()]}____{sentence[best.end() :]}"
                yield "cloze", " ".join(asked.split()), best[0], start, end


def _headings(document: Document) -> Iterator[_Found]:
    """Headings of three words or more that stand once, with what follows them."""
    titles = Counter(section.title.casefold() for section in document.sections)
    for section in document.sections:
        end = min(section.end, section.start + _SECTION_CHARS)
        if len(section.title.split()) >= 3 and titles[section.title.casefold()] == 1 and end > section.start:
            yield "heading", section.title, "", section.start, end


def _definitions(document: Document) -> Iterator[_Found]:
    """Statements that begin with the name of a thing and go on with what it is."""
    seen = set()
    for start, end in sentences(document.text):
        match = _DEFINITION.match(document.text, start, end)
        if match is None:
            continue
        term = match["term"]
        told = " ".join(document.text[match.end() : end].split())
        stated = told.endswith((".", ";")) and not {"?", "!"} & set(told)
        if _CLAUSE.search(term) or term.casefold() in seen or len(told) < 20 or not stated:
            continue
        seen.add(term.casefold())
        yield "definition", f"What is the meaning of {term}?", told.rstrip("."), start, end


def _spread(found: Iterable[_Found], most: int) -> list[_Found]:
    """At most so many, evenly over those there are."""
    known = list(found)
    if len(known) <= most:
        return known
    return [known[(2 * i + 1) * len(known) // (2 * most)] for i in range(most)]


def _once(questions: Sequence[Question]) -> Iterator[Question]:
    """Questions that several documents would answer are all their evidence's."""
    joined: dict[str, Question] = {}
    for question in questions:
        before = joined.get(question.text)
        joined[question.text] = (
            question
            if before is None
            else replace(
                before,
                relevance={**before.relevance, **question.relevance},
                spans={**question.spans, **before.spans},
            )
        )
    yield from joined.values()


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]
