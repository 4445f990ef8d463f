"""Formats are told by bytes first, then by media type, then by suffix."""

from __future__ import annotations

import importlib
import io
import zipfile

import pytest

from pipeline.errors import DamagedFileError, EmptyDocumentError, LimitExceededError, UnsupportedFormatError
from pipeline.read import Limits, read
from pipeline.read.sniff import MEDIA_TYPES, READERS, SUFFIXES, detect
from tests.pdf_writer import Line, pdf

OLE = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(500)
MAIL = b"Return-Path: <a@b.c>\nFrom: a@b.c\nTo: d@e.f\nSubject: Hi\n\nText."


def archive(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name in names:
            file.writestr(name, "x")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "media_type", "reader"),
    [
        (b"%PDF-1.7\n", "anything.txt", "text/plain", "pdf"),
        (b"# junk before\n" * 9 + b"%PDF-2.0\n...startxref\n0\n%%EOF", "", "", "pdf"),
        (b"Notes about the header %PDF-1.7 of files", "notes.txt", "", "text"),
        (archive("[Content_Types].xml", "word/document.xml"), "upload.bin", "", "docx"),
        (archive("mimetype", "META-INF/container.xml"), "", "application/octet-stream", "epub"),
        (OLE + "EncryptedPackage".encode("utf-16-le"), "locked.docx", "", "docx"),
        (b"{\\rtf1 hello}", "letter.doc", "", "rtf"),
        (b"\xef\xbb\xbf  <!DOCTYPE html><p>", "page", "", "html"),
        ("<html><p>".encode("utf-16"), "page.txt", "", "html"),
        (b'<?xml version="1.0"?><!DOCTYPE article><article/>', "a.nxml", "", "jats"),
        (b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"/>', "a", "", "html"),
        (MAIL, "message", "", "eml"),
        (b"Subject: a poem\nIt has no more headers.", "poem.txt", "", "text"),
        (b"# Title\n", "readme.md", "", "markdown"),
        (b"# Title\n", "readme", "text/markdown; charset=utf-8", "markdown"),
        (b"# Title\n", "readme.md", "text/plain", "markdown"),
        ("Grüße aus Köln".encode("latin-1"), "brief", "", "text"),
        ("Grüße".encode("utf-16-le") * 20, "brief.txt", "", "text"),
        (b"a,b\n1,2\n", "table.csv", "text/csv", "text"),
    ],
)
def test_detect(data: bytes, name: str, media_type: str, reader: str) -> None:
    assert detect(data, name, media_type) == reader


@pytest.mark.parametrize(
    ("data", "name", "error", "words"),
    [
        (b"", "a.txt", EmptyDocumentError, r"a\.txt is empty"),
        (b" \r\n ", "a.md", EmptyDocumentError, "empty"),
        (bytes(range(256)) * 8, "report.pdf", DamagedFileError, "not a valid PDF"),
        (b"just text", "report.pdf", DamagedFileError, "not a valid PDF"),
        (archive("a.txt"), "report.docx", DamagedFileError, "not a valid DOCX"),
        (archive("a.txt"), "files.zip", UnsupportedFormatError, "zip archive"),
        (archive("xl/workbook.xml"), "b.xlsx", UnsupportedFormatError, "Excel.*PDF, DOCX, EPUB"),
        (OLE + "WordDocument".encode("utf-16-le"), "old.doc", UnsupportedFormatError, r"save it as \.docx"),
        (OLE, "old.xls", UnsupportedFormatError, "old Office"),
        (b"\x89PNG\r\n\x1a\n", "scan.png", UnsupportedFormatError, "PNG image.*OCR"),
        (bytes(range(256)) * 8, "unknown", UnsupportedFormatError, "binary file.*supported format: PDF"),
    ],
)
def test_refusals_name_the_file_and_the_remedy(
    data: bytes, name: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        detect(data, name)


@pytest.mark.parametrize("reader", READERS)
def test_the_tables_agree_with_the_readers(reader: str) -> None:
    module = importlib.import_module(f"pipeline.read.{reader}")
    assert set(module.SUFFIXES) == {suffix for suffix, known in SUFFIXES.items() if known == reader}
    assert set(module.MEDIA_TYPES) == {media for media, known in MEDIA_TYPES.items() if known == reader}


def test_a_file_over_the_input_limit_is_refused_unread() -> None:
    with pytest.raises(LimitExceededError, match=r"big\.txt has 0\.0 MiB"):
        read(b"x" * 101, name="big.txt", limits=Limits(input_bytes=100))


def test_read_end_to_end() -> None:
    document = read(pdf([[Line(72, 72, "Hello from a page.")]]), name="hello.bin")
    assert (document.text, document.media_type, document.title) == (
        "Hello from a page.",
        "application/pdf",
        "hello",
    )
