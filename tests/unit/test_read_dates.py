"""When a file says that it was made: one field, and always a date that filters can compare."""

from __future__ import annotations

import pytest

from pipeline.metadata import moment
from pipeline.read import docx as docx_reader
from pipeline.read import eml, epub
from pipeline.read import pdf as pdf_reader
from pipeline.read.builder import Hints
from pipeline.read.dates import created, iso_of_pdf
from tests.pdf_writer import Line, pdf
from tests.small_files import docx, paragraph
from tests.small_files import epub as book


@pytest.mark.parametrize(
    ("told", "iso"),
    [
        ("D:20190605131258-04'00'", "2019-06-05T13:12:58-04:00"),  # all that ISO 32000-2, 7.9.4 has
        ("D:20190605131258-04'00", "2019-06-05T13:12:58-04:00"),  # its second edition: no last apostrophe
        ("D:199812231952-08'30'", "1998-12-23T19:52:00-08:30"),  # no seconds
        ("D:20190605131258Z", "2019-06-05T13:12:58Z"),
        ("D:20190605131258Z00'00'", "2019-06-05T13:12:58Z"),
        ("D:20190605131258+05'", "2019-06-05T13:12:58+05:00"),
        ("20190605131258", "2019-06-05T13:12:58"),  # as PDF 1.0 had it
        ("D:20190605", "2019-06-05"),
        ("D:201906", "2019-06-01"),
        ("D:2019", "2019-01-01"),
        ("2019-06-05T13:12:58Z", "2019-06-05T13:12:58Z"),  # against the standard, and clear
    ],
)
def test_dates_of_pdf_are_moments(told: str, iso: str) -> None:
    assert created(iso_of_pdf(told)) == {"created": iso}
    assert moment(iso)


@pytest.mark.parametrize(
    "told",
    ["", "D:", "D:191050101", "D:20191305", "D:20190605251258", "6/5/2019 1:12:58 PM", "D:2019\u0660\u0661"],
)
def test_what_is_no_date_is_left_out(told: str) -> None:
    assert created(iso_of_pdf(told)) == {}


def test_a_year_or_month_alone_is_its_first_day() -> None:
    assert created("2015") == {"created": "2015-01-01"}
    assert created("2015-07") == {"created": "2015-07-01"}
    assert created("2015-13") == {}


def test_every_format_with_a_date_names_it_alike() -> None:
    pages = [[Line(72, 72, "The deed of the mill.")]]
    core = "<created>2019-06-05T17:12:58Z</created>"
    mail = b"Subject: S\r\nFrom: a@example.org\r\nDate: Wed, 5 Jun 2019 13:12:58 -0400\r\n\r\nThe deed."
    chapter = {"a.xhtml": "<p>The deed.</p>"}
    told = [
        pdf_reader.read(pdf(pages, created="D:20190605131258-04'00'"), Hints("a.pdf")).metadata,
        docx_reader.read(docx(paragraph("The deed."), core=core), Hints("a.docx")).metadata,
        eml.read(mail, Hints("a.eml")).metadata,
        epub.read(book(chapter, date="2019-06-05"), Hints("a.epub")).metadata,
    ]
    moments = [moment(str(about["created"])) for about in told]
    assert all(moments)
    assert len(set(moments[:3])) == 1
    assert [about.get("date") for about in told[2:]] == ["2019-06-05T13:12:58-04:00", "2019-06-05"]


def test_a_date_in_words_stays_where_it_was() -> None:
    core = "<created>last summer</created>"
    assert docx_reader.read(docx(paragraph("The deed."), core=core), Hints("a.docx")).metadata == {}
    about = epub.read(book({"a.xhtml": "<p>The deed.</p>"}, date="June 2019"), Hints("a.epub")).metadata
    assert (about["date"], "created" in about) == ("June 2019", False)
    mail = b"Subject: S\r\nDate: yesterday\r\n\r\nThe deed."
    assert eml.read(mail, Hints("a.eml")).metadata == {"date": "yesterday"}
