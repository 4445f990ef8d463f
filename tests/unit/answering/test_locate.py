from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.locate import fold, locate

TEXT = (
    "The Confi-\ndential “Agreement” costs $15.50,\tor 5 — the ﬁnal non-refundable price. "
    "高さは二十メートルです。"
)


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ('confidential "agreement"', "Confi-\ndential “Agreement"),
        ("COSTS $15.50, OR 5", "costs $15.50,\tor 5"),
        ("5 - the final", "5 — the ﬁnal"),
        ("nonrefundable price.", "non-refundable price"),
        ("二十メートル", "二十メートル"),
        ("5.50", None),
        ("fidential", None),
        ("15", None),
        ("a refundable price", None),
        ("", None),
        ("“.”", None),
    ],
)
def test_quotes_are_found_through_typography_but_only_whole_words(quote, found):
    span = locate(quote, TEXT)
    assert (TEXT[slice(*span)] if span else None) == found


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_folding_keeps_one_origin_a_character_in_order(text):
    folded = fold(text)
    assert len(folded.text) == len(folded.origins)
    assert list(folded.origins) == sorted(folded.origins)
    assert all(0 <= origin < max(1, len(text)) for origin in folded.origins)


@given(
    words=st.lists(st.from_regex(r"[a-zäß]{1,8}", fullmatch=True), min_size=3, max_size=20), data=st.data()
)
def test_any_run_of_words_is_found_however_it_is_set(words, data):
    text = data.draw(st.sampled_from([" ", "\n", "  ", "\u00a0"])).join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first + 1, len(words)))
    quote = " ".join(words[first:last])
    span = locate(quote.upper(), text)
    assert span is not None
    assert re.sub(r"\s+", " ", text[slice(*span)]) == quote
