"""The filter language: what is read, what is refused, what it means."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import FilterError, InvalidRequestError, LimitExceededError
from pipeline.filters import (
    MAX_ANY_OF,
    MAX_DEPTH,
    MAX_NODES,
    And,
    AnyOf,
    Equals,
    Exists,
    Filter,
    Not,
    Or,
    Range,
    check_fields,
    matches,
    parse,
)
from pipeline.metadata import (
    MAX_FIELDS,
    MAX_INTEGER,
    MAX_LIST_VALUES,
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    MAX_PATH_CHARS,
    field_types,
    indexable,
    merge_types,
    moment,
)

MAY_31, JUNE_1 = 1717113600.0, 1717200000.0


@pytest.mark.parametrize(
    ("json", "expected"),
    [
        ({}, And(())),
        ({"author": "Tolstoy"}, Equals("author", "Tolstoy")),
        ({"author": {"equals": "Tolstoy"}}, Equals("author", "Tolstoy")),
        ({"draft": True}, Equals("draft", "true")),
        ({"year": {"gte": 1860, "lt": 1870}}, Range("year", gte=1860.0, lt=1870.0)),
        ({"language": {"any_of": ["en", 2]}}, AnyOf("language", ("en", 2))),
        ({"reviewer": {"exists": True}}, Exists("reviewer")),
        ({"reviewer": {"exists": False}}, Not(Exists("reviewer"))),
        ({"a": 1, "b": 2}, And((Equals("a", 1), Equals("b", 2)))),
        ({"or": [{"a": 1}, {"not": {"b": 2}}]}, Or((Equals("a", 1), Not(Equals("b", 2))))),
        ({"a": {"gt": 1, "exists": True}}, And((Exists("a"), Range("a", gt=1.0)))),
        ({"day": {"gte": "2024-05-31", "lte": "2024-05-31"}}, Range("day", gte=MAY_31, lt=JUNE_1)),
        ({"day": {"gt": "2024-05"}}, Range("day", gte=JUNE_1)),
        ({"day": {"lt": "2024-06-01T02:00:00+02:00"}}, Range("day", lt=JUNE_1)),
        ({"day": {"lte": "2024-06-01T00:00:00Z"}}, Range("day", lte=JUNE_1)),
    ],
)
def test_the_json_form(json: object, expected: Filter) -> None:
    assert parse(json) == expected


@pytest.mark.parametrize(
    ("json", "where"),
    [
        (None, "filter is None"),
        ([], "filter is a list"),
        ("author", "filter is 'author'"),
        ({"a": None}, "filter.a is None"),
        ({"a": [1, 2]}, "filter.a is a list"),
        ({"a": {}}, "filter.a is an empty object"),
        ({"a": {"gte": True}}, "filter.a.gte"),
        ({"a": {"gte": "soon"}}, "filter.a.gte is 'soon'"),
        ({"a": {"gte": "2024-13-01"}}, "filter.a.gte"),
        ({"a": {"gte": None}}, "filter.a.gte is None"),
        ({"a": {"gtr": 1}}, r"filter.a.'gtr' is no operator. Did you mean 'gt"),
        ({"a": {"any_of": []}}, "filter.a.any_of"),
        ({"a": {"any_of": "en"}}, "filter.a.any_of is 'en'"),
        ({"a": {"any_of": [1, {}]}}, r"filter.a.any_of\[1\] is a dict"),
        ({"a": {"exists": 1}}, "filter.a.exists is 1"),
        ({"a": math.nan}, "filter.a is nan"),
        ({"a": math.inf}, "filter.a is inf"),
        ({"a": 2**60}, "filter.a is 1152921504606846976"),
        ({"a": "\ud800"}, "filter.a is not valid Unicode"),
        ({"\ud800": 1}, "no field name"),
        ({"": 1}, "no field name"),
        ({3: 1}, "no field name"),
        ({"a" * 257: 1}, "no field name"),
        ({"and": []}, "filter.and is a list"),
        ({"and": {"a": 1}}, "filter.and is a dict"),
        ({"or": [{"a": 1}, {"b": None}]}, r"filter.or\[1\].b is None"),
        ({"not": 5}, "filter.not is 5"),
        ({"a": {"lte": "2024-05", "lt": 3}}, "filter.a.lt and another bound"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(json: object, where: str) -> None:
    with pytest.raises(FilterError, match=where) as caught:
        parse(json)
    str(caught.value).encode()


def test_limits_are_kept_and_reported() -> None:
    assert parse({"and": [{"a": 1}] * (MAX_NODES - 1)})
    with pytest.raises(FilterError, match=str(MAX_NODES)):
        parse({"and": [{"a": 1}] * MAX_NODES})
    with pytest.raises(FilterError, match=f"{MAX_ANY_OF + 1} values; the limit is {MAX_ANY_OF}"):
        parse({"a": {"any_of": list(range(MAX_ANY_OF + 1))}})
    deep: Any = {"a": 1}
    for _ in range(MAX_DEPTH - 1):
        deep = {"not": deep}
    assert parse(deep)
    for _ in range(100_000):
        deep = {"not": deep}
    with pytest.raises(FilterError, match=f"the limit is {MAX_DEPTH}"):
        parse(deep)


def test_errors_stay_short_whatever_was_sent() -> None:
    for json in (
        {"a" * 10**6: None},
        {"a": {"b" * 10**6: 1}},
        {"a": {"gte": "c" * 10**6}},
        {"not": {"x" * 10**6: []}},
    ):
        with pytest.raises(FilterError) as caught:
            parse(json)
        assert len(str(caught.value)) < 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["and", "or", "not", "a", "b.c", "gte", "lt", "any_of", "exists", "equals"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_a_filter_or_an_error(json: object) -> None:
    try:
        where = parse(json)
    except FilterError:
        return
    assert matches(where, {"a": 1, "b": {"c": "x"}}) is not matches(Not(where), {"a": 1, "b": {"c": "x"}})


PAYLOAD: dict[str, Any] = {
    "year": 1869,
    "price": 2.0,
    "code": "1",
    "draft": False,
    "title": "Nai\u0308ve",
    "tags": ["a", 7],
    "none": [],
    "day": "2024-05-31",
    "publisher": {"country": "FR", "address": {"city": "Paris"}},
    "dotted.key": "x",
}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Equals("price", 2), True),
        (Equals("price", "2"), False),
        (Equals("code", "1"), True),
        (Equals("code", 1), False),
        (Equals("draft", "false"), True),
        (Equals("draft", 0), False),
        (Equals("title", "Naïve"), True),
        (Equals("title", "naïve"), False),
        (Equals("tags", "a"), True),
        (Equals("tags", 7.0), True),
        (Equals("missing", ""), False),
        (Not(Equals("missing", "")), True),
        (AnyOf("year", (1, 1869)), True),
        (AnyOf("year", ()), False),
        (Range("year", gt=1868, lt=1870), True),
        (Range("year", gt=1869), False),
        (Range("year", gte=1869, lte=1869), True),
        (Range("code", gte=0), False),
        (Range("draft", gte=0), False),
        (Range("tags", gte=7), True),
        (Range("day", gte=MAY_31, lt=MAY_31 + 1), True),
        (Exists("none"), False),
        (Exists("draft"), True),
        (Exists("publisher"), True),
        (Exists("publisher.address"), True),
        (Exists("publ"), False),
        (Equals("publisher.address.city", "Paris"), True),
        (Equals("dotted.key", "x"), True),
        (And(()), True),
        (Or(()), False),
        (And((Equals("year", 1869), Equals("code", "2"))), False),
        (Or((Equals("year", 1869), Equals("code", "2"))), True),
    ],
)
def test_the_meaning(where: Filter, expected: bool) -> None:
    assert matches(where, PAYLOAD) is expected


def test_fields_are_checked_against_what_documents_have() -> None:
    known = {
        "author": "keyword",
        "year": "number",
        "day": "date",
        "draft": "boolean",
        "odd": "mixed",
        "p.country": "keyword",
    }
    for good in (
        {"author": "x", "year": {"gt": 1}, "day": {"gte": "2024-01-01"}, "draft": True},
        {"day": "2024-01-01", "odd": {"any_of": [1, "1"]}, "p": {"exists": True}},
        {"_document_id": "x", "_title": {"exists": True}},
    ):
        check_fields(parse(good), known)
    for bad, message in (
        ({"autor": "x"}, "'autor'. Did you mean 'author'"),
        ({"not": {"p": "x"}}, "No document has the field 'p'"),
        ({"_version": 1}, "'_version'"),
        ({"author": {"gt": 1}}, "'author' holds keyword values, which have no range"),
        ({"draft": {"gt": 1}}, "no range"),
        ({"year": "1869"}, "'1869' can never equal"),
        ({"author": {"any_of": ["x", 3]}}, "3 can never equal"),
        ({"or": [{"year": 1}, {"day": 3}]}, "date values"),
    ):
        with pytest.raises(FilterError, match=message):
            check_fields(parse(bad), known)


def test_types_of_fields() -> None:
    assert field_types({**PAYLOAD, "mixed": [1, "x"], "p": {"q": True}}) == {
        "year": "number",
        "price": "number",
        "code": "keyword",
        "draft": "boolean",
        "title": "keyword",
        "tags": "mixed",
        "day": "date",
        "publisher.country": "keyword",
        "publisher.address.city": "keyword",
        "dotted.key": "keyword",
        "mixed": "mixed",
        "p.q": "boolean",
    }
    assert merge_types("number", "number") == "number"
    assert merge_types("number", "keyword") == "mixed"


def test_metadata_keeps_its_json_types() -> None:
    given_ = {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": ("x", 2),
        "e": {"f": None, "g": datetime.date(2024, 5, 31)},
        "h": None,
    }
    assert indexable(given_) == {"a": 1, "b": 1.5, "c": True, "d": ["x", 2], "e": {"g": "2024-05-31"}}


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"_x": 1}, "'_x' starts with an underscore"),
        ({"a": {"_x": 1}}, "'_x' in 'a'"),
        ({"": 1}, "''"),
        ({"  ": 1}, "is not a name"),
        ({1: 1}, "1 is not a name"),
        ({"and": 1}, "'and' is a word"),
        ({"a": {"b": object()}}, "'a.b' holds a object"),
        ({"a": [[1]]}, "'a' holds a list"),
        ({"a": [{"b": 1}]}, "'a' holds a dict"),
        ({"a": [None]}, "'a' holds a NoneType"),
        ({"a": b"x"}, "'a' holds a bytes"),
        ({"a": math.nan}, "'a' is nan"),
        ({"a": [math.inf]}, "'a' is inf"),
        ({"a": MAX_INTEGER + 1}, "'a' is 9007199254740993"),
        ({"a": "\udfff"}, "'a' holds text that is not valid"),
        ({"\udfff": 1}, "not valid Unicode"),
        ({"a": "x\0"}, "'a' holds text"),
    ],
)
def test_metadata_that_cannot_be_stored_is_named(metadata: dict[Any, Any], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        indexable(metadata)


def test_metadata_limits() -> None:
    nested: dict[str, Any] = {"a": 1}
    for _ in range(MAX_METADATA_DEPTH):
        nested = {"a": nested}
    for metadata, limit in (
        ({f"k{i}": 1 for i in range(MAX_FIELDS + 1)}, MAX_FIELDS),
        ({"a": ["x"] * (MAX_LIST_VALUES + 1)}, MAX_LIST_VALUES),
        ({"a": "x" * MAX_METADATA_BYTES}, f"{MAX_METADATA_BYTES:,}"),
        (nested, MAX_METADATA_DEPTH),
        ({"a": {"b" * MAX_PATH_CHARS: 1}}, MAX_PATH_CHARS),
    ):
        with pytest.raises(LimitExceededError, match=f"the limit is {limit}"):
            indexable(metadata)


@pytest.mark.parametrize(
    "text",
    [
        "2024",
        "20240531",
        "2024-5-31",
        "2024-02-30",
        "2024-W01",
        "10:00",
        "x2024-05-31",
        "2024-05-31T25:00",
        "2024-05T10:00",
        "٢٠٢٤-٠٥-٣١",
        "0000-01-01",
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert moment(text) is None


@given(st.datetimes(timezones=st.just(datetime.UTC)))
def test_dates_are_seconds_since_the_epoch(when: datetime.datetime) -> None:
    expected = (when - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)).total_seconds()
    assert moment(when.isoformat()) == (expected, expected)


def test_days_and_months_last() -> None:
    assert moment("2024-05-31") == (MAY_31, JUNE_1)
    assert moment("2024-12")[1] == moment("2025-01-01")[0]
    assert moment("9999-12-31") is None or moment("9999-12-31")[1] > 0
