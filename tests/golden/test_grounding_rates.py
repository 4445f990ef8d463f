"""Grounding on real sentences: each supports itself, and with one thing changed no longer does.

Reads the development data named by LONGLEAF_DEV_DATA; the bounds are the rates measured there with the
default embedder (docs/answering.md), which the hashing embedder keeps because vetoes do not embed.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedders import hashing
from pipeline import cues
from pipeline.evidence import Reader, gather
from pipeline.ground import ground
from pipeline.lexical import Analyser, LexicalConfig
from pipeline.sentences import sentences
from pipeline.similarity import calibrate
from pipeline.types import Hit

DATA = os.environ.get("LONGLEAF_DEV_DATA", "")
TERMS = Analyser(LexicalConfig(bigram_weight=0.0, stop_words=tuple(sorted(cues.STOP_WORDS)))).terms
READER = Reader(calibrate(hashing.build(hashing.Config())), TERMS)
NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}")
VERB = re.compile(r"\b(?:is|are|was|were|will|can|has|have|had|shall|may|must)\b(?! not)")
MODAL = re.compile(r"\b(shall|must|should|may|might|could|would|can) (?!not\b)([a-z]{2,})")
NOUN = re.compile(r"\b(?:the|an?) ([a-z]{4,})\b(?! [a-z]+ (?:the|an?) \1\b)")
ROLE = re.compile(r"\b(?:from|to|by|for|with)\b")
TENSES = {"is": "was", "are": "were", "was": "is", "were": "are", "has": "had", "have": "had"}
GENDERS = {"he": "she", "she": "he", "his": "her", "her": "his", "him": "her"}

pytestmark = pytest.mark.skipif(not DATA, reason="LONGLEAF_DEV_DATA names no development data")


def number(sentence: str) -> str:
    return re.sub(r"\d+", lambda m: str(int(m.group()) + 1), sentence, count=1)


def name(sentence: str) -> str:
    return NAME.sub("Napoleon", sentence, count=1)


def negation(sentence: str) -> str:
    return VERB.sub(lambda m: f"{m.group()} not", sentence, count=1)


def modal_lost(sentence: str) -> str:
    """May order -> ordered, must be -> is."""
    return MODAL.sub(lambda m: "is" if m[2] == "be" else f"{m[2].removesuffix('e')}ed", sentence, count=1)


def modal_left_out(sentence: str) -> str:
    """They should keep -> they keep."""
    return MODAL.sub(r"\2", sentence, count=1)


def modal_added(sentence: str) -> str:
    return re.sub(r"\b(?:is|are|was|were)\b", "must be", sentence, count=1)


def modal_exchanged(sentence: str) -> str:
    return re.sub(r"\b(?:may|might|could|should|would)\b", "will", sentence, count=1)


def and_to_or(sentence: str) -> str:
    return re.sub(r"\band\b", "or", sentence, count=1)


def or_to_and(sentence: str) -> str:
    return re.sub(r"\bor\b", "and", sentence, count=1)


def role(sentence: str) -> str:
    """To the buyer -> from the buyer."""
    return ROLE.sub(lambda m: "to" if m.group() == "from" else "from", sentence, count=1)


def roles_exchanged(sentence: str) -> str:
    """By the tenant to the landlord -> to the tenant by the landlord."""
    return _exchanged(sentence, list(ROLE.finditer(sentence)), group=0)


def nouns_exchanged(sentence: str) -> str:
    return _exchanged(sentence, list(NOUN.finditer(sentence)), group=1)


def noun_repeated(sentence: str) -> str:
    """The lender warns the borrower -> the lender warns the lender."""
    found = list(NOUN.finditer(sentence))
    if len({m[1] for m in found}) < 2:
        return sentence
    return f"{sentence[: found[-1].start(1)]}{found[0][1]}{sentence[found[-1].end(1) :]}"


def tense(sentence: str) -> str:
    return re.sub(rf"\b(?:{'|'.join(TENSES)})\b", lambda m: TENSES[m.group()], sentence, count=1)


def verb_tense(sentence: str) -> str:
    """Signed -> signs."""
    return re.sub(r"(?<=[a-z] )([a-z]{3,})ed\b", r"\1s", sentence, count=1)


def gender(sentence: str) -> str:
    return re.sub(rf"\b(?:{'|'.join(GENDERS)})\b", lambda m: GENDERS[m.group()], sentence, count=1)


def condition(sentence: str) -> str:
    return f"If {sentence[:1].lower()}{sentence[1:]}"


def occasion(sentence: str) -> str:
    return f"When {sentence[:1].lower()}{sentence[1:]}"


def frequency(sentence: str) -> str:
    return re.sub(r"\b(is|are|was|were)\b", r"\1 often", sentence, count=1)


def quantity_lost(sentence: str) -> str:
    return re.sub(r"\b(?:[Ss]ome|[Mm]ost|[Mm]any|[Ff]ew|more than) (?:of )?(?=\w)", "", sentence, count=1)


def _exchanged(sentence: str, found: list[re.Match[str]], group: int) -> str:
    """The first two different matches change places."""
    others = [m for m in found[1:] if m[group] != found[0][group]]
    if not others:
        return sentence
    (a, b), (c, d) = found[0].span(group), others[0].span(group)
    return f"{sentence[:a]}{sentence[c:d]}{sentence[b:c]}{sentence[a:b]}{sentence[d:]}"


CORRUPTIONS = (
    number, name, negation, modal_lost, modal_left_out, modal_added, modal_exchanged, and_to_or, or_to_and,
    role, roles_exchanged, nouns_exchanged, noun_repeated, tense, verb_tense, gender, condition, occasion,
    frequency, quantity_lost,
)  # fmt: skip


def passages(name: str) -> Iterator[tuple[Hit, list[str]]]:
    """A hundred passages of at most 1,500 characters with their longer sentences."""
    with gzip.open(Path(DATA) / name / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    for document in random.Random(7).sample(documents, min(100, len(documents))):
        text = document["text"][:1500]
        spans = [(a, b) for a, b in sentences(text) if 6 <= len(text[a:b].split()) <= 45]
        hit = Hit(document["id"], document["id"], 1, document["title"], text, 0, len(text), 1.0)
        yield hit, [text[a:b] for a, b in spans[1:3]]


def otherwise_set(sentence: str) -> str:
    return re.sub(r"\s+", "\n", sentence.upper())


def attributed(sentence: str) -> str:
    return f"According to the passage, {sentence}"


def article(sentence: str) -> str:
    return re.sub(r"\b(?:such|this|these|an?)\b", "the", sentence, count=1)


def modal_otherwise(sentence: str) -> str:
    return MODAL.sub(
        lambda m: {"shall": "must", "may": "can"}.get(m[1], m[1]) + f" {m[2]}", sentence, count=1
    )


def part_left_out(sentence: str) -> str:
    """Without what is in brackets or after the last comma: a condition, now and then."""
    return re.sub(r"\s*\([^()]*\)|,(?! \d)[^,;()]{10,}(?=\.$)", "", sentence, count=1)


HARMLESS = {otherwise_set: 0.99, attributed: 0.99, article: 0.98, modal_otherwise: 0.98, part_left_out: 0.85}
"""Changes that leave a statement true, and the share that is still supported."""


@pytest.fixture(scope="module")
def rates() -> dict[str, list[bool]]:
    """Of three sets, what is supported of each kind of change; ``verbatim`` is none."""
    found: dict[str, list[bool]] = {}
    for dataset in ("nq_open_oracle", "contractnli", "covidqa"):
        for hit, chosen in passages(dataset):
            evidence = gather([hit], READER)
            for sentence in chosen:
                variants = {change.__name__: change(sentence) for change in (*CORRUPTIONS, *HARMLESS)}
                changed = {kind: text for kind, text in variants.items() if text != sentence}
                texts = [sentence, *changed.values()]
                for kind, statement in zip(
                    ["verbatim", *changed], ground(texts, "", evidence, READER), strict=True
                ):
                    found.setdefault(kind, []).append(statement.supported)
    return found


def test_sentences_support_themselves(rates):
    assert len(rates["verbatim"]) > 300
    assert all(rates["verbatim"])


@pytest.mark.parametrize("change", CORRUPTIONS, ids=lambda change: change.__name__)
def test_a_corruption_is_not_supported(rates, change):
    supported = rates[change.__name__]
    assert len(supported) >= 10
    assert sum(supported) <= 0.01 * len(supported)


@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.__name__)
def test_a_harmless_change_is_supported(rates, change):
    supported = rates[change.__name__]
    assert len(supported) >= 10
    assert sum(supported) >= HARMLESS[change] * len(supported)
