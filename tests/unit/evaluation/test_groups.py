"""What results are shown by, and how places in documents are compared across sets."""

from __future__ import annotations

import pytest

from benchmarks.results import _middle_less_beginning
from pipeline.evaluation.dataset import Question
from pipeline.evaluation.report import SetReport
from pipeline.evaluation.runner import Asked, Ingested, groups

LENGTHS = {"a": 300, "b": 30}


@pytest.mark.parametrize(
    ("spans", "place"),
    [
        ({"a": ((0, 20),)}, "beginning"),
        ({"a": ((90, 120),)}, "middle"),
        ({"a": ((250, 300), (220, 240))}, "end"),
        ({"a": ((0, 20), (290, 300))}, "several"),
        ({"a": ((0, 20),), "b": ((28, 30),)}, "several"),
    ],
)
def test_places_are_thirds_that_hold_all_of_the_evidence(
    spans: dict[str, tuple[tuple[int, int], ...]], place: str
) -> None:
    question = Question("q", "Which?", relevance={"a": 1}, spans=spans)
    assert groups(question, LENGTHS)["position"] == place


def a_set(values: dict[str, list[float]]) -> SetReport:
    asked = [
        Asked(f"{place}{i}", {"span_recall@1000": value}, {}, {"position": place})
        for place, found in values.items()
        for i, value in enumerate(found)
    ]
    return SetReport("s", Ingested(1, 1, 1, 1, None, {}), {}, {}, {}, asked)


def test_a_hard_set_with_early_evidence_does_not_make_beginnings_worse() -> None:
    hard = a_set({"beginning": [0.5] * 90, "middle": [0.5] * 10})
    easy = a_set({"beginning": [1.0] * 10, "middle": [1.0] * 90, "end": [0.0]})
    assert _middle_less_beginning([hard, easy]) == "+0.000 [+0.000, +0.000]"
    worse = a_set({"beginning": [0.75] * 10, "middle": [0.5] * 10})
    found = _middle_less_beginning([worse, a_set({"middle": [1.0]})])
    assert found == "-0.250 [-0.250, -0.250]"


def test_sets_without_places_have_no_difference() -> None:
    assert _middle_less_beginning([a_set({"end": [1.0]})]) == "not known"
