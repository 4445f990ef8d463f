"""Word documents: what the page shows, in order, and what Word generates."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import msoffcrypto
import pytest
from small_files import archive, docx, paragraph

from pipeline.errors import DamagedFileError, PasswordRequiredError, ReaderLimitError
from pipeline.read import archive as zip_archive
from pipeline.read.builder import Hints
from pipeline.read.docx import read
from pipeline.types import Document

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN = "<w:r><w:t>{}</w:t></w:r>"


def shown(document: Document) -> list[tuple[str, str]]:
    return [(b.kind, document.text[b.start : b.end]) for b in document.blocks]


def of(body: str, **parts: str) -> Document:
    return read(docx(body, **parts), Hints("memo.docx"))


def numbered(text: str, number: int, indent: int = 0) -> str:
    return paragraph(
        text, properties=f'<w:numPr><w:ilvl w:val="{indent}"/><w:numId w:val="{number}"/></w:numPr>'
    )


def test_headings_by_outline_by_name_in_any_language_and_inherited() -> None:
    body = (
        paragraph("The Title", "Titel")
        + paragraph("By name", "berschrift2")
        + paragraph("Inherited", "Mine")
        + paragraph("Direct", properties='<w:outlineLvl w:val="2"/>')
        + paragraph("Not one", "Mine", '<w:outlineLvl w:val="9"/>')
        + paragraph("Entry\t3", "Verzeichnis1")
        + paragraph("Figure 1: A duck", "Beschriftung")
    )
    document = of(body)
    assert [(s.level, s.title) for s in document.sections] == [
        (1, "The Title"),
        (2, "I.1 By name"),
        (1, "Inherited"),
        (3, "Direct"),
    ]
    assert [kind for kind, _ in shown(document)][-3:] == ["paragraph", "list_item", "caption"]
    assert document.title == "The Title"


def test_generated_numbers_count_as_word_counts() -> None:
    body = "".join(
        [
            numbered("a", 7),
            numbered("b", 7, 1),
            numbered("c", 7, 2),
            numbered("d", 7, 2),
            numbered("e", 7),
            numbered("f", 7, 1),
            numbered("g", 9),
            numbered("bullet", 8),
            numbered("none", 0),
            numbered("unknown", 99),
        ]
    )
    assert [text for _, text in shown(of(body))] == [
        "I. a", "I.1 b", "(a) c", "(b) d", "II. e", "II.1 f", "V. g", "bullet", "none", "unknown",
    ]  # fmt: skip


def test_deleted_hidden_and_field_codes_are_left_out_inserted_and_linked_text_is_kept() -> None:
    runs = (
        RUN.format("Kept ")
        + f"<w:del>{'<w:r><w:delText>deleted</w:delText></w:r>'}</w:del>"
        + f"<w:ins>{RUN.format('inserted ')}</w:ins>"
        + "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>"
        + '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText>PAGE</w:instrText></w:r>'
        + f"<w:hyperlink>{RUN.format('linked')}</w:hyperlink>"
        + "<w:r><w:tab/><w:t>tab</w:t><w:br/><w:t>line</w:t><w:noBreakHyphen/><w:t>end</w:t></w:r>"
    )
    assert shown(of(paragraph(runs))) == [("paragraph", "Kept inserted linked tab\nline-end")]


def test_footnotes_and_text_boxes_follow_their_paragraph() -> None:
    box = f"<w:txbxContent>{paragraph('In the box.')}</w:txbxContent>"
    runs = (
        f'{RUN.format("Body")}<w:r><w:footnoteReference w:id="2"/></w:r>{RUN.format(" goes on.")}'
        f"<mc:AlternateContent><mc:Choice><w:drawing>{box}</w:drawing></mc:Choice>"
        f"<mc:Fallback><w:pict>{box}</w:pict></mc:Fallback></mc:AlternateContent>"
    )
    separator = f'<w:footnote w:type="separator" w:id="0">{paragraph("-")}</w:footnote>'
    notes = f'{separator}<w:footnote w:id="2">{paragraph("A note.")}</w:footnote>'
    assert shown(of(paragraph(runs), footnotes=notes)) == [
        ("paragraph", "Body goes on."),
        ("footnote", "[1] A note."),
        ("paragraph", "In the box."),
    ]


def table(*rows: list[str]) -> str:
    cells = ("".join(f"<w:tc>{cell}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def test_tables_of_data_and_tables_that_frame() -> None:
    p = paragraph
    body = (
        table([p("State"), p("Rate"), p("")], [p("Ohio"), p(""), p("")], [p("Utah"), p("5 %"), p("")])
        + p("Between")
        + table([p("§ 343") + p("§ 344"), p("Examination") + p("Immunity")])
        + table([p("Heading inside", "berschrift1") + p("Framed text.")])
    )
    assert shown(of(body)) == [
        ("table_row", "State | Rate"),
        ("table_row", "Ohio |"),
        ("table_row", "Utah | 5 %"),
        ("paragraph", "Between"),
        ("table_row", "§ 343 | Examination"),
        ("table_row", "§ 344 | Immunity"),
        ("heading", "Heading inside"),
        ("paragraph", "Framed text."),
    ]


def test_formula_reads_on_one_line() -> None:
    formula = (
        "<m:oMath><m:r><m:t>x=</m:t></m:r><m:f><m:num><m:r><m:t>a+b</m:t></m:r></m:num>"
        "<m:den><m:r><m:t>2</m:t></m:r></m:den></m:f></m:oMath>"
    )
    assert of(paragraph(f"{RUN.format('Let')}{formula}{RUN.format('hold.')}")).text == "Let x=(a+b)/2 hold."


def test_pages_where_word_saved_a_layout_that_fits() -> None:
    body = paragraph("One.") + paragraph(f"<w:r><w:lastRenderedPageBreak/></w:r>{RUN.format('Two.')}")
    body += paragraph(
        f"{RUN.format('Still two')}<w:r><w:lastRenderedPageBreak/></w:r>{RUN.format(' then three.')}"
    )
    document = of(body, app="<Pages>3</Pages>")
    assert [(p.number, document.text[p.start : p.end].strip()) for p in document.pages] == [
        (1, "One."),
        (2, "Two.\n\nStill two"),
        (3, "then three."),
    ]
    assert of(body, app="<Pages>30</Pages>").pages == ()
    assert of(body).pages == ()


def test_metadata_and_fallback_title() -> None:
    core = "<dc:title>Real title</dc:title><dc:creator>Ann</dc:creator>"
    document = of(paragraph("Text."), core=core)
    assert (document.title, document.metadata["author"]) == ("Real title", "Ann")
    assert of(paragraph("Text.")).title == "memo"


def test_handbook_of_872_pages_in_bounded_memory() -> None:
    program = (
        "import resource, sys; from pathlib import Path; from pipeline.read.builder import Hints;"
        "from pipeline.read.docx import read; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "d = read(Path(sys.argv[1]).read_bytes(), Hints('handbook.docx'));"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "print(len(d.text), sum(s.level == 1 for s in d.sections), (peak - before) // 1024,"
        "'Chapter 13 Standing Trustees' in ' '.join(d.text.split()))"
    )
    path = EXAMPLES / "trustee_handbook.docx"
    told = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    chars, chapters, peak_mib, found = told.stdout.split()
    assert (int(chars), int(chapters), found) == (812_272, 14, "True")
    assert int(peak_mib) < 64, "5 MB of XML must not become a tree"


def test_damage_bombs_and_missing_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DamagedFileError):
        read(b"PK\x05\x06" + b"\0" * 18, Hints())
    with pytest.raises(DamagedFileError):
        read(archive({"word/document.xml": "<w:document><unclosed>"}), Hints())
    with pytest.raises(DamagedFileError):
        read(bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 4000, Hints())
    monkeypatch.setattr(zip_archive, "MAX_MEMBER_BYTES", 2**20)
    with pytest.raises(ReaderLimitError, match=r"word/document\.xml"):
        read(docx(paragraph("0" * 2**21)), Hints())


def test_entities_are_never_expanded() -> None:
    body = '<!DOCTYPE d [<!ENTITY a "boom">]><d><body><p><r><t>x &a; y</t></r></p></body></d>'
    assert "boom" not in read(archive({"word/document.xml": body}), Hints()).text


def test_encrypted_document_opens_with_its_password() -> None:
    plain = BytesIO(docx(paragraph("Secret words.")))
    with zipfile.ZipFile(plain, "a") as made:  # the library that seals it here spoils files below 4 KiB
        made.comment = b" " * 8192
    sealed = BytesIO()
    msoffcrypto.OfficeFile(plain).encrypt("open sesame", sealed)
    data = sealed.getvalue()
    assert read(data, Hints(password="open sesame")).text == "Secret words."
    with pytest.raises(PasswordRequiredError, match="encrypted"):
        read(data, Hints())
    with pytest.raises(PasswordRequiredError, match="wrong"):
        read(data, Hints(password="guess"))
