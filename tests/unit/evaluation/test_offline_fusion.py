"""The matrices that fusions are chosen on give the same scores as the fusion that searches use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.fusion import Fusion as Offline
from benchmarks.fusion import evaluate, fused, leave_one_out
from benchmarks.signals import Choices, Set, Signals, bm25, roll_up
from pipeline.evaluation.dataset import EvaluationSet, Question, SetDocument
from pipeline.fuse import Evidence, Fusion, fuse
from pipeline.lexical import Analyser, LexicalConfig
from pipeline.measure import spans
from pipeline.types import Match

DOCS = np.array([0, 0, 0, 1, 1, 2])  # of six passages
PARENTS = np.repeat(np.arange(6), 3)  # of eighteen units
FIRSTS = np.arange(0, 18, 3)


def match(document: int, ordinal: int, score: float, parent: int | None = None) -> Match:
    payload = {"_document_id": f"d{document}", "_version": 1, "_ordinal": ordinal, "_parent": parent}
    return Match(f"{document}-{ordinal}-{parent}", float(score), payload)


def best_first(matches: list[Match]) -> list[Match]:
    return sorted(matches, key=lambda m: -m.score)


@pytest.mark.parametrize("usual_words", [0, 20])
@pytest.mark.parametrize("method", ["convex", "weighted_rrf", "rrf", "distribution"])
def test_offline_scores_are_those_of_a_search(method: str, usual_words: int) -> None:
    random = np.random.default_rng(4)
    units, passages = random.uniform(-0.2, 0.9, (2, 18)), random.uniform(-0.2, 0.9, (2, 6))
    words, whole = random.uniform(0.5, 9, 6), random.uniform(0.5, 20, 3)
    evidence = Evidence(
        [best_first([match(DOCS[PARENTS[i]], i, s, PARENTS[i]) for i, s in enumerate(row)]) for row in units],
        [best_first([match(DOCS[p], p, s, p) for p, s in enumerate(row)]) for row in passages],
        best_first([match(DOCS[p], p, s, p) for p, s in enumerate(words)]),
        best_first([match(d, 0, s) for d, s in enumerate(whole)]),
        query_weight=6.0,
        query_words=8,
    )  # fmt: skip
    choices = Choices()
    by_document = np.flatnonzero(np.r_[True, DOCS[1:] != DOCS[:-1]])
    signals = Signals(
        unit=roll_up(units, FIRSTS, choices).mean(0)[None],
        passage=passages.mean(0)[None],
        lexical=words[None],
        document_unit=roll_up(units, by_document * 3, choices).mean(0)[None],
        document_passage=roll_up(passages, by_document, choices).mean(0)[None],
        document_lexical=whole[None],
        query_weight=np.array([6.0]),
        query_words=np.array([8]),
        allowed=None,
        best_unit=np.zeros((1, 6), int),
    )
    shares = {"dense": 0.7, "unit": 0.3, "passage": 0.6, "usual_words": usual_words, "length_discount": 0.2}
    sizes = {(f"d{document}", 1): int((document == DOCS).sum()) for document in range(3)}
    offline = fused(signals, Offline(method=method, **shares), DOCS)[0]
    searched = fuse(evidence, Fusion(method=method, **shares), sizes)  # type: ignore[arg-type]
    assert len(searched) == 6
    if method == "rrf":  # the shares of documents are a choice of the offline grid
        offline = fused(signals, Offline(method=method, passage=0.5), DOCS)[0]
    assert [r.score for r in searched] == pytest.approx([offline[r.ordinal] for r in searched])


def test_offline_bm25_is_that_of_the_index() -> None:
    texts = ["red wine red glass", "a glass of water", "nothing else"]
    analyser = Analyser(LexicalConfig(language="english"))
    vectors = [analyser.document_vector(text, 4.0) for text in texts]
    [scores] = bm25(vectors, [analyser.query_vector("a red glass")])
    from indexers.exact import ExactIndexer
    from pipeline.seams import IndexSchema, IndexSearch
    from pipeline.types import Point

    index = ExactIndexer(None)
    index.create("i", IndexSchema("f", None, True, {}))
    ids = [f"00000000-0000-0000-0000-00000000000{i}" for i in range(3)]
    index.upsert("i", [Point(i, {}, None, v) for i, v in zip(ids, vectors, strict=True)])
    [found] = index.search("i", [IndexSearch(9, sparse=analyser.query_vector("a red glass"))])
    held = {m.id: m.score for m in found}
    assert [held.get(i, 0.0) for i in ids] == pytest.approx(scores.tolist(), rel=1e-5)


def test_budgets_and_rankings_by_hand(tmp_path: Path) -> None:
    """Two documents; the second passage of the first holds the evidence, and the budget cuts it."""
    documents = (SetDocument("a", "x" * 100), SetDocument("b", "y" * 40))
    question = Question("q", "Which?", relevance={"a": 1}, spans={"a": ((60, 80),)})
    arrays = {
        "doc": [0, 0, 0, 0, 1],
        "start": [0, 20, 50, 70, 0],
        "end": [20, 50, 70, 100, 40],
        "tokens": [20, 20, 20, 30, 40],
        "parent128": [0, 0, 1, 1, 0],
        "piece_question": [0],
    }
    np.savez(
        tmp_path / "s.npz",
        **{k: np.array(v, np.int32) for k, v in arrays.items()},
        **{
            k: np.ones((n, 4), np.float16) for k, n in (("late", 5), ("own", 5), ("pieces", 1), ("titles", 2))
        },
    )
    data = Set(EvaluationSet("s", documents, (question,)), tmp_path / "s.npz")
    cut = data.passages(128)
    assert cut["start"].tolist() == [0, 50, 0]
    signals = data.signals(Choices())
    signals.best_unit[0, 1] = 2
    scores = np.array([[0.1, 0.5, 0.9]])
    found = evaluate(data, signals, scores, cut, budget=65)
    assert found["ndcg"][0] == pytest.approx(1 / np.log2(3))
    # 40 tokens of b, then the unit [50, 70) of a, which is 20 of the 25 left.
    assert found["recall"][0] == pytest.approx(spans({"a": [(60, 80)]}, {"a": [(50, 70)]})["recall"])
    assert evaluate(data, signals, scores, cut, budget=200)["recall"][0] == 1


def test_a_set_has_no_say_in_what_is_chosen_for_it() -> None:
    first, second = Offline(), Offline(dense=0.9)
    table = {"a": {first: 0.1, second: 0.9}, "b": {first: 0.8, second: 0.7}, "c": {first: 0.6, second: 0.5}}
    chosen = {name: (fusion, value) for name, fusion, value, _, _ in leave_one_out(table)}
    assert chosen["a"] == (first, 0.1)
    assert chosen["b"] == (second, 0.7)
