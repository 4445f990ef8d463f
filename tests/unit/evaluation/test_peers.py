"""What is told of other tools: budgets, paired differences, ratios of speed, and results that are kept."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers.speed import table
from benchmarks.peers.systems import Document, Piece, with_title
from pipeline.evaluation.dataset import EvaluationSet, Question, SetDocument


def words(text: str) -> list[tuple[int, int]]:
    """A tokenizer of words: their offsets."""
    found, at = [], 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        found.append((start, at))
    return found


def test_the_last_piece_is_cut_after_the_token_that_fits() -> None:
    texts = {"a": "one two three four", "b": "five six"}
    pieces = [Piece("b", 0, 8), Piece("a", 4, 18), Piece("a", 0, 3)]
    assert peers.taken(pieces, texts, words, 4) == {"b": [(0, 8)], "a": [(4, 13)]}
    assert peers.taken(pieces, texts, words, 6) == {"b": [(0, 8)], "a": [(4, 18), (0, 3)]}


def test_a_piece_that_repeats_what_was_read_costs_nothing() -> None:
    texts = {"a": "one two three four", "b": "one two three four"}
    pieces = [Piece("a", 0, 18), Piece("b", 0, 18, repeats=True), Piece("b", 4, 7)]
    assert peers.taken(pieces, texts, words, 4) == {"a": [(0, 18)], "b": [(0, 18)]}


def test_titles_go_before_texts_that_do_not_begin_with_them() -> None:
    assert with_title(Document("a", "Ice  Rinks", "ICE rinks: a history")) == ("ICE rinks: a history", 0)
    assert with_title(Document("a", "Ice", "A history")) == ("Ice\nA history", 4)


def test_differences_are_longleafs_less_the_others_by_question() -> None:
    documents = (SetDocument("a", "x"), SetDocument("b", "y"))
    questions = tuple(Question(f"q{i}", "?", relevance={"a": 1}) for i in range(3))
    given = EvaluationSet("s", documents, questions)
    costs = {"tokens_per_second": 1000.0, "search_ms_p50": 2.0, "peak_mib": 3.0}

    def rows(order: list[str], recalls: list[float]) -> dict[str, Any]:
        found = {f"q{i}": {"documents": order, "recall": r} for i, r in enumerate(recalls)}
        return {**costs, "rows": found}

    results = {"longleaf": rows(["a", "b"], [1, 1, 1]), "plain": rows(["b", "a"], [0.5] * 3)}
    told = peers.compared(given, results)
    assert "| longleaf | 1.000 |  | 1.000 |  | 1,000 | 2 | 3 |" in told
    assert "| plain | 0.631 | +0.369 [+0.369, +0.369] n=3 | 0.500 | +0.500 [+0.500, +0.500] n=3 |" in told
    results["longleaf"]["tokens"] = 7
    [line] = [line for line in peers.summary([(given, results)]).splitlines() if "plain" in line]
    change = "1.000 | 0.631 | +0.369 [+0.369, +0.369] n=3 | 1.000 | 0.500 | +0.500 [+0.500, +0.500] n=3"
    assert line == f"| s, plain | {change} |"


def test_results_of_the_same_work_are_kept_and_those_of_other_work_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def apart(given: argparse.Namespace, name: str, system: str) -> dict[str, Any] | None:
        ran.append(f"{name} {system}")
        return None if system == "broken" else {"rows": {}, "tokens": 7}

    monkeypatch.setattr(peers, "_apart", apart)
    given = argparse.Namespace(documents=None, questions=3, share=None, budget_tokens=9, out=tmp_path / "out")
    given.kept = False
    first = peers._row_of(given, "s", "plain")
    assert first is not None
    assert peers._row_of(given, "s", "plain") == first
    assert json.loads((tmp_path / "out" / "s.plain.json").read_text()) == first
    assert peers._row_of(given, "s", "broken") is None
    given.questions = 4
    given.kept = True
    assert peers._row_of(given, "s", "plain") is None
    given.kept = False
    peers._row_of(given, "s", "plain")
    assert ran == ["s plain", "s broken", "s plain"]


def test_ratios_are_to_the_fastest_of_the_others() -> None:
    def rounds(*speeds: float, ms: float) -> list[dict[str, float]]:
        return [{"tokens_per_second": s, "p50_ms": ms, "p95_ms": 2 * ms} for s in speeds]

    told = table(
        {
            "longleaf": rounds(300, 100, 200, ms=10),
            "plain": rounds(100, 100, 100, ms=20),
            "txtai": rounds(50, 400, 60, ms=40),
        }
    )
    assert "| longleaf | 200 (100 to 300) | 2.00 | 10.0 | 0.50 | 20.0 | 3 |" in told
    assert "| txtai | 60 (50 to 400) | 0.60 | 40.0 | 2.00 | 80.0 | 3 |" in told
