from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from constitution import DOCUMENT, HOUSE, JUDGES, SENATE, Library, hit, hits
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import NotFoundError
from pipeline.types import Document, Query
from pipeline.wide import widened

QUERY = Query("How old must a Representative be?")


def count(text: str) -> int:
    return len(text.split())


WHOLE = count(DOCUMENT.text)


@dataclass(frozen=True)
class Shelf:
    """Several documents by id."""

    documents: dict[str, Document]

    def load(self, tenant, collection, document_id, version=None):
        if document_id not in self.documents:
            raise NotFoundError(f"There is no {document_id}.")
        return self.documents[document_id]


def tokens_given(passages):
    return tuple(replace(passage, tokens=count(passage.text)) for passage in passages)


def test_a_document_that_fits_is_read_whole():
    [whole] = widened(tokens_given(hits()), QUERY, Library(), WHOLE, count)
    assert whole.text == DOCUMENT.text
    assert (whole.start, whole.end, whole.tokens) == (0, len(DOCUMENT.text), WHOLE)


def test_of_a_longer_one_the_neighbourhood_is_read():
    [around] = widened(tokens_given([hit(SENATE)]), QUERY, Library(), WHOLE * 2 // 3, count)
    assert SENATE in around.text
    assert count(SENATE) < around.tokens <= WHOLE * 2 // 3
    assert around.text == DOCUMENT.text[around.start : around.end]


def test_neighbourhoods_that_touch_are_one_and_documents_are_in_the_order_of_their_hits():
    far = Document(title="Long", text="one two three four five\n" * 400, id="long", version=1)
    shelf = Shelf({"constitution": DOCUMENT, "long": far})
    other = replace(hit("x"), document_id="long", text=far.text[2400:2448], start=2400, end=2448, tokens=10)
    near = [hit(HOUSE), hit(SENATE)]
    wide = widened(tokens_given([other, *near]), QUERY, shelf, 300, count)
    assert wide[0].document_id == "long"
    assert {h.document_id for h in wide} == {"long", "constitution"}
    assert sum(h.tokens for h in wide) <= 300
    for piece in wide:
        text = shelf.documents[piece.document_id].text
        assert piece.text == text[piece.start : piece.end]
    assert wide[0].text.startswith("one ")
    assert wide[0].text.rstrip().endswith("five")


def test_a_document_that_vanished_is_left_out():
    assert widened(tokens_given(hits()), QUERY, Shelf({}), 1000, count) == ()


@pytest.mark.parametrize("budget", [0, 1])
def test_without_a_budget_there_is_nothing(budget):
    assert sum(h.tokens for h in widened(tokens_given(hits()), QUERY, Library(), budget, count)) <= budget


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(0, 400),
    places=st.lists(st.tuples(st.integers(0, 1500), st.integers(1, 300)), min_size=1, max_size=6),
)
def test_the_budget_holds_and_texts_are_the_documents(budget, places):
    text = DOCUMENT.text
    found = [
        replace(hit(JUDGES), text=text[start : start + size], start=start, end=min(start + size, len(text)))
        for start, size in places
        if start < len(text)
    ]
    wide = widened(tokens_given(found), QUERY, Library(), budget, count)
    assert sum(h.tokens for h in wide) <= budget
    ends = 0
    for piece in wide:
        assert piece.text == text[piece.start : piece.end]
        assert piece.start >= ends
        ends = piece.end
