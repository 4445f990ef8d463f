"""EPUB books: order, contents, licence, pages, protection."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from small_files import archive, epub

from pipeline.errors import DamagedFileError, ReaderLimitError, UnsupportedFormatError
from pipeline.read import archive as zip_archive
from pipeline.read.builder import Hints
from pipeline.read.epub import read
from pipeline.types import Document

EXAMPLES = Path(__file__).parents[2] / "examples"


def titles(document: Document) -> list[tuple[int, str]]:
    return [(s.level, s.title) for s in document.sections]


def test_spine_order_headings_and_metadata() -> None:
    chapters = {
        "z.xhtml": "<h1>One</h1><p>First.</p><h2>Deep</h2><p>Second.</p>",
        "a.xhtml": "<h1>Two</h1><p>Third.</p>",
    }
    document = read(epub(chapters, nav='<li><a href="z.xhtml">Contents entry</a></li>', title="one"), Hints())
    assert document.text == "One\n\nFirst.\n\nDeep\n\nSecond.\n\nTwo\n\nThird."
    assert titles(document) == [(1, "One"), (2, "Deep"), (1, "Two")]
    assert (document.title, document.metadata["author"]) == ("one", "Ann Author")


def test_title_stands_in_for_a_title_page_that_is_a_picture() -> None:
    book = epub(
        {"cover.xhtml": '<img src="c.jpg"/>', "a.xhtml": "<h1>One</h1><p>Text.</p>"}, title="On Ducks"
    )
    assert read(book, Hints()).text == "On Ducks\n\nOne\n\nText."


def test_chapters_without_headings_take_their_label() -> None:
    chapters = {"a.xhtml": "<p>Once upon a time.</p>", "b.xhtml": '<p class="t">The End</p><p>They died.</p>'}
    nav = '<li><a href="a.xhtml#x">The Start</a></li><li><a href="b.xhtml">The end</a></li>'
    document = read(epub(chapters, nav=nav), Hints())
    assert titles(document) == [(1, "The Start"), (1, "The End")]
    assert document.text.count("The End") == 1


def test_number_and_title_of_a_chapter_are_one_heading() -> None:
    document = read(epub({"a.xhtml": "<h2>CHAPTER I</h2><h2>The Sun-Seeker</h2><p>Text.</p>"}), Hints())
    assert titles(document) == [(2, "CHAPTER I The Sun-Seeker")]


def test_print_pages_and_notes() -> None:
    body = (
        '<p>Before <span epub:type="pagebreak" title="12"/>after.</p>'
        '<span epub:type="pagebreak" title="xiii"/>'
        '<p>Next.<sup><a epub:type="noteref" href="#n">1</a></sup></p>'
        '<aside epub:type="footnote">A note.</aside>'
    )
    document = read(epub({"a.xhtml": body}), Hints())
    assert [(p.number, p.label, document.text[p.start : p.end].strip()) for p in document.pages] == [
        (1, "12", "Before after."),
        (2, "xiii", "Next.\n\nA note."),
    ]
    assert document.blocks[-1].kind == "footnote"


def test_pages_take_their_printed_numbers_where_these_ascend() -> None:
    mark = '<span epub:type="pagebreak" title="{}"/>'
    body = f"<p>{mark.format(169)}One {mark.format(170)}two</p>{mark.format(172)}<p>three</p>"
    document = read(epub({"a.xhtml": body}), Hints())
    assert [(p.number, document.text[p.start : p.end].strip()) for p in document.pages] == [
        (169, "One"),
        (170, "two"),
        (172, "three"),
    ]


def test_whole_gutenberg_book() -> None:
    document = read((EXAMPLES / "winter_sports_in_switzerland.epub").read_bytes(), Hints())
    assert document.title == "Winter Sports in Switzerland"
    assert "Alpine day and night" in " ".join(document.text.split())
    top = [s for s in document.sections if s.level == 1]
    assert [s.title for s in top] == [
        "WINTER SPORTS IN SWITZERLAND",
        "*** END OF THE PROJECT GUTENBERG EBOOK WINTER SPORTS IN SWITZERLAND ***",
    ]
    chapters = [s for s in document.sections if s.title.startswith("CHAPTER")]
    assert len(chapters) == 8
    assert chapters[0].title == "CHAPTER I THE SUN-SEEKER"
    assert all("Project Gutenberg" not in document.text[s.start : s.end] for s in chapters)


def test_protected_book_says_so_and_obfuscated_fonts_do_not() -> None:
    entry = (
        '<encryption><EncryptedData xmlns="http://www.w3.org/2001/04/xmlenc#">'
        '<EncryptionMethod Algorithm="{}"/></EncryptedData></encryption>'
    )
    chapters = {"a.xhtml": "<p>Text.</p>"}
    fonts = {"META-INF/encryption.xml": entry.format("http://www.idpf.org/2008/embedding")}
    assert read(epub(chapters, extra=fonts), Hints()).text == "Text."
    drm = {"META-INF/encryption.xml": entry.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc")}
    with pytest.raises(UnsupportedFormatError, match="DRM"):
        read(epub(chapters, extra=drm), Hints())


def test_missing_chapter_is_a_warning() -> None:
    data = epub({"a.xhtml": "<p>Text.</p>", "b.xhtml": "<p>Gone.</p>"})
    kept = {}
    with zipfile.ZipFile(BytesIO(data)) as found:
        kept = {n: found.read(n).decode() for n in found.namelist() if not n.endswith("b.xhtml")}
    document = read(archive(kept), Hints())
    assert document.text == "Text."
    assert "OEBPS/b.xhtml" in document.warnings[0]


def test_no_epub_and_zip_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DamagedFileError):
        read(b"PK\x03\x04 nothing", Hints())
    with pytest.raises(DamagedFileError, match="container"):
        read(archive({"mimetype": "application/epub+zip"}), Hints())
    monkeypatch.setattr(zip_archive, "MAX_MEMBER_BYTES", 2**20)
    bomb = epub({"a.xhtml": f"<p>{'0' * 2**21}</p>"})
    assert len(bomb) < 2**14
    with pytest.raises(ReaderLimitError, match=r"a\.xhtml"):
        read(bomb, Hints())
