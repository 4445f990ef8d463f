"""Evidence that its document repeats is found wherever it is found."""

from __future__ import annotations

from pipeline.evaluation.copies import AROUND_CHARS, copies_of, read_with, repeated, with_copies
from pipeline.evaluation.dataset import Question
from pipeline.measure import spans
from pipeline.types import Hit, Location

PAGE = f"{'On the first page this stood:'.rjust(AROUND_CHARS)} the fee is 5 % a year {'and so on. ' * 9}"
TEXT = f"Preface. {PAGE}Other things, with a fee is 5 % inside. {PAGE}"
START = TEXT.index("the fee is 5 %")
END = START + len("the fee is 5 %")
SECOND = TEXT.rindex("the fee is 5 %")
QUESTION = Question("q", "What is the fee?", relevance={"a": 1}, spans={"a": ((START, END),)})


def test_a_copy_is_the_evidence_with_what_stands_around_it() -> None:
    assert SECOND > END
    assert copies_of(QUESTION, {"a": TEXT}) == {"a": [((START, END), (SECOND, SECOND + END - START))]}
    assert copies_of(QUESTION, {"a": TEXT[: SECOND - 20]}) == {}


def test_part_of_a_copy_counts_as_that_part_of_the_evidence() -> None:
    copies = copies_of(QUESTION, {"a": TEXT})
    half = {"a": [(SECOND - 100, SECOND + 7)]}
    assert spans(QUESTION.spans, half)["recall"] == 0
    assert with_copies(half, copies) == {"a": [(SECOND - 100, SECOND + 7), (START, START + 7)]}
    assert spans(QUESTION.spans, with_copies(half, copies))["recall"] == 7 / (END - START)
    both = {"a": [(SECOND, SECOND + 7), (START, END)]}
    assert spans(QUESTION.spans, with_copies(both, copies))["recall"] == 1
    elsewhere = {"a": [(0, 5)], "b": [(SECOND, SECOND + 7)]}
    assert with_copies(elsewhere, copies) == elsewhere


def test_evidence_at_the_edges_of_a_document() -> None:
    text = "Fee: 5 %." + " " * 60 + "Fee: 5 %."
    for place in ((0, 9), (len(text) - 9, len(text))):
        question = Question("q", "?", spans={"a": (place,)})
        assert copies_of(question, {"a": text}) == {}


def test_a_near_duplicate_that_a_hit_names_has_been_read() -> None:
    twin, longer = Location("b", 1, "", 50, 152, 0.4), Location("c", 1, "", 0, 300, 0.3)
    hit = Hit("a:0", "a", 1, "", "x" * 100, 10, 110, 0.5, also=(twin, longer))
    assert repeated(hit) == (twin,), "of the longer one only a part was shown"
    other = Hit("a:1", "a", 1, "", "y" * 20, 200, 220, 0.2)
    assert read_with([hit, other]) == {"a": [(10, 110), (200, 220)], "b": [(50, 152)]}
    assert read_with([]) == {}
