"""Lexical analysis, and that its vectors score as BM25 does.

Oracles: BM25 written out in ten lines, and ``rank_bm25`` where its inverse document frequency orders
as ours does (every query term in fewer than half of the documents).
"""

from __future__ import annotations

import math
import random
import threading
import unicodedata
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from indexers.exact import ExactIndexer
from indexers.qdrant_edge import Config, QdrantEdgeIndexer
from pipeline import words
from pipeline.errors import ConfigurationError
from pipeline.languages import latin_language
from pipeline.lexical import Analyser, LexicalConfig
from pipeline.seams import Indexer, IndexSchema, IndexSearch
from pipeline.types import Point, SparseVector

WORDS_ONLY = LexicalConfig(bigram_weight=0, language="english")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Dogs were RUNNING", ["the", "dog", "were", "run"]),
        ("$45,000", ["45000", "$45000"]),
        ("45,000 45000 1,234,567.89", ["45000", "45000", "1234567.89"]),
        ("€5 12.5%", ["5", "€5", "12.5", "12.5%"]),
        ("Form 10-K", ["form", "10-k", "10", "k"]),
        ("Section 2.1(b)", ["section", "2.1(b)", "2.1", "b"]),
        ("550e8400-e29b-41d4", ["550e8400-e29b-41d4", "550e8400", "e29b", "41d4"]),
        ("2024-05-31", ["2024-05-31", "2024", "05", "31"]),
        ("U.S. law, e.g. this", ["us", "law", "eg", "this"]),
        ("well-known and/or", ["well", "known", "and", "or"]),
        ("John’s John's don't", ["john", "john", "don't"]),
        ("café CAFÉ cafe\u0301 cafe", ["cafe"] * 4),
        ("ﬁnance ｆｕｌｌ soft\u00adhyphen", ["financ", "full", "softhyphen"]),
        ("end.Start one,two", ["end", "start", "one", "two"]),
        ("東京都", ["東", "京", "都", "東京", "京都"]),
        ("水", ["水"]),
        ("カタカナー", ["カタ", "タカ", "カナ", "ナー"]),
        ("ภาษาไทย", ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"]),
        ("한국어", ["한국", "국어"]),
        ("नमस्ते", ["नमस्ते"]),
        ("ёлка мой", ["елка", "мой"]),
        ("Model東京", ["model", "東", "京", "東京"]),
        ("", []),
        (" \n—!?… \ud800", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert Analyser(WORDS_ONLY).terms(text) == expected


def test_languages_and_options() -> None:
    assert Analyser(LexicalConfig(language="german", bigram_weight=0)).terms("Die Häuser") == ["die", "haus"]
    assert Analyser(LexicalConfig(language="french", bigram_weight=0)).terms("l'avocate") == ["l", "avocat"]
    assert Analyser(replace(WORDS_ONLY, stems=False)).terms("Running dogs") == ["running", "dogs"]
    assert Analyser(replace(WORDS_ONLY, stop_words=("the", "of"))).terms("The end of time") == ["end", "time"]
    assert Analyser().terms("big red dogs, 10-K red") == [
        *("big", "red", "dog", "10-k", "10", "k", "red"),
        *("big red", "red dog"),
    ]
    with pytest.raises(ConfigurationError, match=r"'englsh'.*Did you mean 'english'"):
        Analyser(LexicalConfig(language="englsh"))
    for bad in ({"k1": -1}, {"b": 1.1}, {"b": math.nan}, {"bigram_weight": -0.1}, {"context_weight": 2}):
        with pytest.raises(ConfigurationError, match=r"out of range|context_weight is 2"):
            LexicalConfig(**bad)


def test_parameters_restore_the_analyser() -> None:
    config = LexicalConfig(1.2, 0.5, "german", False, 0.3, ("der", "die"))
    stored = {**Analyser(config).parameters, "avg_len": 250.0}
    assert Analyser.from_parameters(stored).config == config
    with pytest.raises(ConfigurationError, match="version 0"):
        Analyser.from_parameters({**stored, "analyser_version": 0})


@given(st.text())
def test_vectors_are_well_formed_for_any_text(text: str) -> None:
    analyser = Analyser()
    for vector in (analyser.document_vector(text, 10.0), analyser.query_vector(text)):
        assert vector.indices.dtype == np.uint32
        assert vector.values.dtype == np.float32
        assert (np.diff(vector.indices.astype(np.int64)) > 0).all()
        assert (vector.values > 0).all()
    assert len(vector.indices) == len(set(analyser.terms(text)))


@given(st.text(st.characters(codec="ascii")))
def test_the_fast_pattern_is_the_slow_one(text: str) -> None:
    assert words.tokens(text) == words._TOKEN.findall(text)


@given(st.text(max_size=60))
def test_case_and_normal_form_do_not_matter(text: str) -> None:
    analyser = Analyser(replace(WORDS_ONLY, stems=False))
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert analyser.terms(composed.casefold()) == analyser.terms(composed.casefold().casefold())
    if all(unicodedata.category(c) in ("Lu", "Ll", "Zs") and c < "\u0250" for c in composed):
        assert analyser.terms(decomposed) == analyser.terms(composed)


def test_threads_share_an_analyser() -> None:
    """Equal to a lone one, whoever saw a word first."""
    texts = [" ".join(f"word{i * j % 977}ing" for j in range(300)) for i in range(1, 30)]
    expected = [Analyser().document_vector(text, 50).indices for text in texts]
    shared, wrong = Analyser(), []

    def work() -> None:
        for text, indices in zip(texts, expected, strict=True):
            if not np.array_equal(shared.document_vector(text, 50).indices, indices):
                wrong.append(text)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def corpus(seed: int) -> list[str]:
    """Texts of very different lengths from a Zipfian vocabulary."""
    rng = random.Random(seed)
    vocabulary = [f"{c}{v}{d}o" for c in "bdfgklmnprst" for v in "aeiu" for d in "bklmnprt"]
    weights = [1 / (rank + 1) for rank in range(len(vocabulary))]
    return [" ".join(rng.choices(vocabulary, weights, k=rng.choice([3, 20, 200]))) for _ in range(150)]


def bm25(documents: list[list[str]], query: list[str], config: LexicalConfig) -> list[float]:
    average = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        counts, score = Counter(document), 0.0
        for term in query:
            n = sum(term in other for other in documents)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            norm = config.k1 * (1 - config.b + config.b * len(document) / average)
            score += idf * counts[term] * (config.k1 + 1) / (counts[term] + norm)
        scores.append(score)
    return scores


def build(indexer: Indexer, texts: list[str], config: LexicalConfig) -> Analyser:
    analyser = Analyser(config)
    average = sum(map(analyser.length, texts)) / len(texts)
    indexer.create("i", IndexSchema("f", None, True, analyser.parameters))
    points = [
        Point(str(uuid.UUID(int=i)), {"i": i}, None, analyser.document_vector(text, average))
        for i, text in enumerate(texts)
    ]
    indexer.upsert("i", points)
    return analyser


def search(indexer: Indexer, analyser: Analyser, query: str, limit: int) -> list[tuple[int, float]]:
    matches = indexer.search("i", [IndexSearch(limit, sparse=analyser.query_vector(query))])[0]
    return [(match.payload["i"], match.score) for match in matches]


@pytest.mark.parametrize(
    "config", [WORDS_ONLY, replace(WORDS_ONLY, k1=1.5, b=1.0), replace(WORDS_ONLY, b=0.0)]
)
@pytest.mark.parametrize("engine", ["exact", "qdrant_edge"])
def test_scores_are_bm25(engine: str, config: LexicalConfig, tmp_path: Path) -> None:
    """Score by score equal to the written-out formula, repeated query words included."""
    texts = corpus(1)
    indexer: Indexer = ExactIndexer(None) if engine == "exact" else QdrantEdgeIndexer(Config(path=tmp_path))
    analyser = build(indexer, texts, config)
    documents = [analyser.terms(text) for text in texts]
    rng = random.Random(2)
    for _ in range(10):
        query = rng.choices([term for document in documents for term in document], k=rng.randint(1, 12))
        query.append(query[0])
        expected = {i: score for i, score in enumerate(bm25(documents, query, config)) if score > 0}
        found = dict(search(indexer, analyser, " ".join(query), 1000))
        assert found.keys() == expected.keys()
        assert list(found.values()) == pytest.approx([expected[i] for i in found], rel=2e-5)
    indexer.close()


def test_order_is_that_of_rank_bm25_for_rare_terms() -> None:
    texts, config = corpus(3), WORDS_ONLY
    indexer = ExactIndexer(None)
    analyser = build(indexer, texts, config)
    documents = [analyser.terms(text) for text in texts]
    reference = BM25Okapi(documents, k1=config.k1, b=config.b)
    frequency = Counter(term for document in documents for term in set(document))
    rare = sorted(term for term, n in frequency.items() if 2 <= n <= 15)
    for term in rare[:60]:  # one term a query: the variants of idf then only scale the scores
        scores = reference.get_scores([term])
        found = [i for i, _ in search(indexer, analyser, term, 1000)]
        assert len(found) == frequency[term]
        assert [scores[i] for i in found] == pytest.approx(
            sorted(scores, reverse=True)[: len(found)], rel=1e-6
        )


def test_adjacent_words_count_more_and_as_weighted() -> None:
    texts = ["red wine in a small glass", "wine glass that is red and small", "nothing here"]
    indexer = ExactIndexer(None)
    config = LexicalConfig(bigram_weight=1.0)
    analyser = build(indexer, texts, config)
    together = dict(search(indexer, analyser, "red wine", 3))
    assert together[0] > together[1]
    without = Analyser(LexicalConfig(bigram_weight=1e-9))
    apart = dict(search(indexer, without, "red wine", 3))
    assert together[0] - apart[0] == pytest.approx(
        math.log(1 + 2.5 / 1.5) * (config.k1 + 1) / (1 + config.k1 * (0.25 + 0.75 * 6 / 5))
    )
    assert together[1] == pytest.approx(apart[1])


def words_of(analyser: Analyser, vector: SparseVector, text: str) -> dict[str, float]:
    """Weights by term, for the terms of ``text``."""
    known = {int(analyser.query_vector(term).indices[0]): term for term in analyser.terms(text)}
    return {
        known[int(i)]: float(w) for i, w in zip(vector.indices, vector.values, strict=True) if int(i) in known
    }


def test_passages_without_context_are_plain_bm25() -> None:
    analyser = Analyser(LexicalConfig(context_weight=0, language="english"))
    texts = corpus(4)[:20]
    for vector, text in zip(analyser.passage_vectors(texts, 30.0, "A title"), texts, strict=True):
        plain = analyser.document_vector(text, 30.0)
        assert np.array_equal(vector.indices, plain.indices)
        assert np.array_equal(vector.values, plain.values)


def test_a_passage_is_weighed_in_itself_and_among_its_neighbours() -> None:
    """Equal to the mean of two BM25 vectors that are made from whole texts."""
    config = replace(WORDS_ONLY, context_weight=0.25, titles=False)
    analyser = Analyser(config)
    texts = ["alpha beta", "beta gamma gamma", "delta", "epsilon alpha"]
    vectors = analyser.passage_vectors(texts, 3.0)
    for i, vector in enumerate(vectors):
        around = texts[max(0, i - 1) : i + 2]
        window = words_of(
            analyser, analyser.document_vector(" ".join(around), 3.0 * len(around)), " ".join(around)
        )
        own = words_of(analyser, analyser.document_vector(texts[i], 3.0), texts[i])
        expected = {t: 0.25 * w + 0.75 * own.get(t, 0.0) for t, w in window.items()}
        assert words_of(analyser, vector, " ".join(texts)) == pytest.approx(expected)
    only = analyser.passage_vectors(["alpha beta"], 3.0)[0]
    assert words_of(analyser, only, "alpha beta") == pytest.approx(
        words_of(analyser, analyser.document_vector("alpha beta", 3.0), "alpha beta")
    )


def test_titles_are_words_of_the_document_and_context_of_its_passages() -> None:
    analyser = Analyser(replace(WORDS_ONLY, context_weight=0.5))
    terms = {*analyser.terms("kestrel"), *analyser.terms("body")}
    for title, text, weighs in (("Kestrel", "body", True), ("Kestrel", "KESTREL\nbody", False)):
        plain = analyser.document_vector(text, 5.0)
        whole = analyser.whole_vector(title, text, 5.0)
        assert (len(whole.indices) > len(plain.indices)) is weighs
        [passage] = analyser.passage_vectors(["body"], 5.0, title, text)
        assert set(words_of(analyser, passage, "kestrel body")) == (terms if weighs else {"bodi"})
    off = Analyser(replace(WORDS_ONLY, titles=False))
    assert len(off.whole_vector("Kestrel", "body", 5.0).indices) == 1


@given(st.lists(st.text(max_size=30), max_size=5), st.text(max_size=10))
def test_passage_vectors_are_well_formed_for_any_text(texts: list[str], title: str) -> None:
    for vector in Analyser().passage_vectors(texts, 8.0, title, " ".join(texts)):
        assert (np.diff(vector.indices.astype(np.int64)) > 0).all()
        assert (vector.values > 0).all()
        assert vector.values.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Which team has won the cup?", "english"),
        ("Wie viele Punkte gab die Verteidigung der Panthers ab?", "german"),
        ("¿Cuántos puntos cedió la defensa de los Panthers?", "spanish"),
        ("Câte puncte au cedat Panthers în sezonul acesta?", "romanian"),
        ("Panthers savunması kaç puan verdi?", "turkish"),
        ("Quelle équipe est-ce que les Panthers ont battue ?", "french"),
        ("Hàng thủ của Panthers đã thua bao nhiêu điểm?", "vietnamese"),
        ("Super Bowl 50", None),
        ("東京都", None),
        ("", None),
    ],
)
def test_languages_are_told_by_function_words(text: str, language: str | None) -> None:
    assert latin_language(text) == language


def test_each_text_and_question_is_stemmed_in_its_own_language() -> None:
    analyser = Analyser(LexicalConfig(bigram_weight=0))
    german = "Die Häuser der Stadt sind alt, und viele von ihnen stehen leer."
    turkish = "Bu kitaplar çok eski ve bir zaman için kayıptı."
    for text, question in ((german, "Wo sind die alten Haus?"), (turkish, "Bu kitap ne zaman kayıp?")):
        held, asked = analyser.document_vector(text, 10.0), analyser.query_vector(question)
        own = Analyser(LexicalConfig(bigram_weight=0, language=str(latin_language(text))))
        assert np.array_equal(held.indices, own.document_vector(text, 10.0).indices)
        english = Analyser(LexicalConfig(bigram_weight=0, language="english"))
        shared = len(np.intersect1d(held.indices, asked.indices))
        assert shared > len(
            np.intersect1d(
                english.document_vector(text, 10.0).indices, english.query_vector(question).indices
            )
        )


def test_parameters_stored_before_there_were_context_and_titles() -> None:
    stored = {
        k: v for k, v in Analyser(WORDS_ONLY).parameters.items() if k not in ("context_weight", "titles")
    }
    assert Analyser.from_parameters(stored).config == replace(WORDS_ONLY, context_weight=0.0, titles=False)


def test_scripts_choose_their_stemmer() -> None:
    terms = Analyser(LexicalConfig(bigram_weight=0)).terms
    assert terms("книги") == terms("книга") == ["книг"]
    assert terms("γάτες") == terms("γάτα")
    assert terms("كتاب") == terms("الكتاب")
    serbian = Analyser(LexicalConfig(bigram_weight=0, language="serbian")).terms
    assert serbian("књиге") == [Stemmer.Stemmer("serbian").stemWord("књиге")]
    for config in (LexicalConfig(bigram_weight=0, stems=False), WORDS_ONLY):
        assert Analyser(config).terms("книги") == ["книги"]
