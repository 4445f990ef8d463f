"""What holds for every reader: sound blocks and sections, and no surprise from damaged files."""

from __future__ import annotations

import contextlib
import random
import unicodedata
import zipfile
from collections.abc import Callable
from io import BytesIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_files import MAIL, RTF, docx, epub, paragraph

from pipeline.errors import ReadError
from pipeline.read import docx as docx_reader
from pipeline.read import eml, html, jats, markdown, rtf, text
from pipeline.read import epub as epub_reader
from pipeline.read.builder import Hints
from pipeline.types import Document

PAGE = b"""<!doctype html><html lang="en">
<head><title>T</title></head><body>
<nav><a href="x">m</a></nav><main><h1>One</h1><p>Text<br>with <b>bold</b> and <sup>2</sup>.</p>
<ol><li>a<ul><li>b</ul></ol><pre>x
 y</pre><table><tr><th>h<th>i<tr><td>1<td>2</table><h2>Two</h2><p>End &amp; fin.</p></main></body></html>"""
BODY = (
    paragraph("Heading", "berschrift1")
    + paragraph("Words of the text, quite a few.")
    + "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc>"
    + "<w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
)
DOCX = docx(BODY, app="<Pages>1</Pages>", core="<dc:title>T</dc:title>")
EPUB = epub(
    {"a.xhtml": "<h1>One</h1><p>First.</p>", "b.xhtml": "<p>Second.</p>"},
    nav='<li><a href="b.xhtml">B</a></li>',
)
ARTICLE = (
    b"<article><front><article-meta><title-group><article-title>T</article-title></title-group>"
    b"</article-meta></front>"
    b"<body><sec><title>A</title><p>x<sup><xref ref-type='bibr'>1</xref></sup></p></sec></body>"
    b"<back><ref-list><ref><label>1</label><mixed-citation>R</mixed-citation></ref></ref-list></back></article>"
)
WHOLE: dict[str, tuple[Callable[[bytes, Hints], Document], bytes]] = {
    "docx": (docx_reader.read, DOCX),
    "epub": (epub_reader.read, EPUB),
    "html": (html.read, PAGE),
    "rtf": (rtf.read, RTF),
    "eml": (eml.read, MAIL),
    "jats": (jats.read, ARTICLE),
    "markdown": (markdown.read, b"# One\n\n- a\n- b\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx\n```\n"),
    "text": (text.read, b"CHAPTER I\n\nIt was a dark night.\n\n1. one\n2. two\n\nA  B\tC\n"),
}
MUTANTS = 200


def assert_sound(document: Document) -> None:
    """Blocks in order, apart and trimmed, every word in one (underlines of headings are in none);
    sections nested; pages in order."""
    at = 0
    for block in document.blocks:
        assert at <= block.start < block.end <= len(document.text)
        assert not any(map(str.isalnum, document.text[at : block.start])), "words outside of every block"
        assert document.text[block.start : block.end].strip()
        assert (block.level > 0) == (block.kind == "heading")
        at = block.end
    assert not any(map(str.isalnum, document.text[at:]))
    starts = {block.start for block in document.blocks if block.kind == "heading"}
    for i, section in enumerate(document.sections):
        assert section.start in starts
        assert section.start < section.end <= len(document.text)
        for later in document.sections[i + 1 :]:
            assert section.start < later.start
            assert later.start >= section.end or (later.end <= section.end and later.level > section.level)
    edges = [edge for page in document.pages for edge in (page.start, page.end)]
    assert edges == sorted(edges)
    document.text.encode()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut out, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, length = rng.randrange(len(changed) + 1), rng.choice((1, 1, 4, 30, 200))
        match rng.randrange(5):
            case 0:
                changed[at : at + length] = rng.randbytes(length)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length] * 3
            case 3:
                changed[at : at + 1] = rng.choice(
                    (b"<", b">", b"&", b"\x00", b"{", b"}", b"\\", b"\xff", b'"', b"=")
                )
            case _:
                del changed[at:]
        if not changed:
            break
    return bytes(changed)


def mutated_inside(data: bytes, rng: random.Random) -> bytes:
    """A sound zip around one mutated member, so that the parsers behind the zip are reached."""
    made = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as whole, zipfile.ZipFile(made, "w") as broken:
        victim = rng.choice(whole.namelist())
        for name in whole.namelist():
            member = whole.read(name)
            broken.writestr(name, mutated(member, rng) if name == victim else member)
    return made.getvalue()


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_files_make_sound_documents(kind: str) -> None:
    read, data = WHOLE[kind]
    document = read(data, Hints(f"a.{kind}"))
    assert_sound(document)
    assert document.text


@pytest.mark.parametrize("kind", WHOLE)
def test_damaged_files_make_sound_documents_or_read_errors(kind: str) -> None:
    read, data = WHOLE[kind]
    rng = random.Random(f"{kind} 1")
    for i in range(MUTANTS):
        inside = kind in ("docx", "epub") and i % 4
        mutant = mutated_inside(data, rng) if inside else mutated(data, rng)
        try:
            document = read(mutant, Hints(f"a.{kind}", password="x" if i % 2 else None))
        except ReadError:
            continue
        assert_sound(document)


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *(
                    "",
                    "",
                    "CHAPTER I",
                    "BOOK ONE: 1805",
                    "1. item",
                    "- item",
                    "A: said B.",
                    "=====",
                    "I",
                    "a\tb\tc",
                ),
                *("\f", "## deep", "THE END", "  indented", "2.1 Scope", "第一章", "\u2028", "\x00"),
                "*** END OF THE PROJECT GUTENBERG EBOOK X ***",
                "The quick brown fox jumps over the lazy dog and goes on to the end of the",
            ]
        ),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=90),
    ),
    max_size=40,
)
TAGS = (
    "p",
    "h1",
    "h2",
    "h3",
    "li",
    "td",
    "pre",
    "div",
    "span",
    "b",
    "table",
    "ul",
    "ol",
    "figcaption",
    "br",
    "sup",
)


@settings(max_examples=300, deadline=None)
@given(lines=LINES, ending=st.sampled_from(["\n", "\r\n", "\r"]))
def test_posted_text_keeps_every_character_and_every_word_has_a_block(lines: list[str], ending: str) -> None:
    posted = ending.join(lines)
    try:
        document = text.from_text(posted)
    except ReadError:
        return
    assert document.text == posted
    assert_sound(document)


@settings(max_examples=200, deadline=None)
@given(lines=LINES)
@example(lines=["", "=====", "\x00", "\x00"])
def test_reflowing_a_file_changes_nothing_but_white_space_and_hyphens(lines: list[str]) -> None:
    source = "\n".join(line.replace("\r", " ") for line in lines)
    try:
        document = text.read(source.encode(), Hints())
    except ReadError:
        return
    assert_sound(document)
    if document.warnings:
        return  # readings were left out, or the encoding guessed

    def letters(words: str) -> str:
        return "".join(words.translate(dict.fromkeys(map(ord, "\x00\ufeff\x1a-"))).split())

    assert letters(document.text) == letters(unicodedata.normalize("NFC", source))


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(TAGS),
            st.text(st.characters(codec="utf-8"), max_size=20),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_any_soup_of_tags_makes_a_sound_document(parts: list[tuple[str, str, bool]]) -> None:
    page = "".join(f"<{tag}>{words}" + (f"</{tag}>" if closed else "") for tag, words, closed in parts)
    with contextlib.suppress(ReadError):
        assert_sound(html.read(f"<html><body>x{page}</body></html>".encode(), Hints()))
