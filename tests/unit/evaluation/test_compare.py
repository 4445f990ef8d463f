"""Two reports: what differs, and what cannot be compared."""

from __future__ import annotations

import pytest

from pipeline.errors import InvalidRequestError
from pipeline.evaluation.compare import Coverage, compare, coverage
from pipeline.evaluation.report import Report, SetReport, summary
from pipeline.evaluation.runner import Asked, Ingested

INGESTED = Ingested(1, 1, 1, 1, None)


def a_set(name: str, questions: dict[str, float], measure: str = "nDCG@10") -> SetReport:
    values = {q: {"refused": 0.0, measure: value} for q, value in questions.items()}
    return summary(name, INGESTED, [Asked(q, v, {}, {}) for q, v in values.items()], {})


def a_report(*sets: SetReport) -> Report:
    return Report({}, sets)


def test_a_set_that_is_gone_is_lost_and_one_that_came_is_not() -> None:
    kept = a_set("kept", {"a": 1.0})
    gone, came = coverage(
        a_report(kept, a_set("gone", {"b": 1.0})), a_report(kept, a_set("came", {"c": 1.0}))
    )[1:]
    assert (gone.set, gone.lost, came.set, came.lost) == ("gone", True, "came", False)
    assert str(gone) == "gone: only the old report has 1 of its 1 questions; nothing of it is compared."
    assert str(came) == "came: only the new report has 1 of its 1 questions."


def test_questions_and_measures_of_one_report_alone_are_counted() -> None:
    old = a_report(a_set("s", {"a": 1.0, "b": 0.0, "c": 1.0}))
    assert coverage(old, old) == [Coverage("s", 3, 3, 3, (), (), lost=False)]
    assert str(coverage(old, old)[0]) == ""
    [found] = coverage(old, a_report(a_set("s", {"b": 0.0, "d": 1.0})))
    assert (found.shared_questions, found.lost) == (1, False)
    told = "s: only the old report has 2 of its 3 questions; only the new report has 1 of its 2 questions."
    assert str(found) == told


def test_other_cutoffs_are_named_and_refusals_alone_are_no_comparison() -> None:
    old, new = a_report(a_set("s", {"a": 1.0})), a_report(a_set("s", {"a": 1.0}, "nDCG@5"))
    with pytest.raises(
        InvalidRequestError, match=r"no measure in common\. s: only the old report has nDCG@10"
    ) as told:
        compare(old, new)
    assert "same cutoffs" in told.value.remedy
    with pytest.raises(InvalidRequestError, match="t: only the new report has 1 of its 1"):
        compare(old, a_report(a_set("t", {"a": 1.0})))


def test_more_refusals_are_worse() -> None:
    reports = [
        a_report(
            summary(
                "s", INGESTED, [Asked(f"q{i}", {"refused": r, "nDCG@10": 0.5}, {}, {}) for i in range(9)], {}
            )
        )
        for r in (0.0, 1.0)
    ]
    worse = {d.measure: d.regressed(0.005) for d in compare(*reports)}
    assert worse == {"refused": True, "nDCG@10": False}
