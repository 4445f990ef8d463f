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

pytestmark = pytest.mark.skipif(not DATA, reason="LONGLEAF_DEV_DATA names no development data")


def number(sentence: str) -> str:
    return re.sub(r"\d+", lambda m: str(int(m.group()) + 1), sentence, count=1)


def name(sentence: str) -> str:
    return NAME.sub("Napoleon", sentence, count=1)


def negation(sentence: str) -> str:
    return VERB.sub(lambda m: f"{m.group()} not", sentence, count=1)


def passages(name: str) -> Iterator[tuple[Hit, list[str]]]:
    """A hundred passages of at most 1,500 characters with their longer sentences."""
    with gzip.open(Path(DATA) / name / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    for document in random.Random(7).sample(documents, min(100, len(documents))):
        text = document["text"][:1500]
        spans = [(a, b) for a, b in sentences(text) if 6 <= len(text[a:b].split()) <= 45]
        hit = Hit(document["id"], document["id"], 1, document["title"], text, 0, len(text), 1.0)
        yield hit, [text[a:b] for a, b in spans[1:3]]


@pytest.mark.parametrize("dataset", ["nq_open_oracle", "contractnli", "covidqa"])
def test_sentences_support_themselves_and_no_corruption_of_them(dataset):
    rates: dict[str, list[bool]] = {}
    for hit, chosen in passages(dataset):
        evidence = gather([hit], READER)
        for sentence in chosen:
            variants = {"verbatim": sentence, "set otherwise": re.sub(r"\s+", "\n", sentence.upper())}
            variants |= {change.__name__: change(sentence) for change in (number, name, negation)}
            for kind, text in variants.items():
                if kind == "verbatim" or text != sentence:
                    [statement] = ground([text], "", evidence, READER)
                    rates.setdefault(kind, []).append(statement.supported)
    assert len(rates["verbatim"]) > 50
    assert all(rates["verbatim"])
    assert sum(rates["set otherwise"]) >= 0.99 * len(rates["set otherwise"])
    for kind in ("number", "name", "negation"):
        assert len(rates[kind]) >= 10
        assert sum(rates[kind]) <= 0.02 * len(rates[kind]), kind
