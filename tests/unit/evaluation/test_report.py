"""What of a report is shown: the measures of its plan, and facts in words."""

from __future__ import annotations

from pipeline.evaluation.page import page
from pipeline.evaluation.report import Report, in_words, shown, summary
from pipeline.evaluation.runner import Asked, Ingested
from pipeline.evaluation.tables import markdown

ABOUT = {"versions": {"python": "3.11", "torch": "2.9"}, "plan": {"cutoffs": [1, 5], "answers": True}}


def a_report(*questions: dict[str, float]) -> Report:
    asked = [Asked(f"q{i}", values, {}, {}) for i, values in enumerate(questions)]
    return Report(ABOUT, [summary("s", Ingested(1, 1, 1, 1, None), asked, {})])


def test_the_usual_cutoff_is_shown_or_else_the_largest() -> None:
    names = ["nDCG@1", "nDCG@10", "nDCG@100", "span_recall@100", "span_recall@300", "token_f1"]
    assert shown(names, ("nDCG", "span_recall", "token_f1", "R")) == [
        "nDCG@10",
        "span_recall@300",
        "token_f1",
    ]
    assert shown(["nDCG@5", "nDCG@1"], ("nDCG",)) == ["nDCG@5"]


def test_tables_show_what_the_plan_measured() -> None:
    report = a_report({"nDCG@5": 0.25, "span_recall@300": 0.5, "span_recall@50": 0.125, "refused": 0.0})
    [head] = [line for line in markdown(report).splitlines() if "nDCG" in line]
    assert head == "| | nDCG@5 | span_recall@50 | span_recall@300 |"
    assert "<h2>nDCG@5</h2>" in page(report)
    assert "refused" in markdown(a_report({"nDCG@5": 0.0, "refused": 1.0}))


def test_a_system_that_says_nothing_does_not_look_perfect() -> None:
    report = a_report({"abstained": 1.0}, {"answered": 0.0, "supported": 0.0})
    told = markdown(report)
    assert "| | answered | abstained | supported |" in told
    assert "| s | 0.000 " in told
    assert "<h2>answered</h2>" in page(report)


def test_facts_are_told_in_words() -> None:
    told = markdown(a_report({"nDCG@5": 1.0}))
    assert "- versions: python 3.11, torch 2.9" in told
    assert "- plan: cutoffs 1/5, answers yes" in told
    assert "{" not in page(a_report({"nDCG@5": 1.0})).partition("<body>")[2]
    assert in_words({"a": None}) == "a None"
