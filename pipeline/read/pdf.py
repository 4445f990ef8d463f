"""PDF, on PDFium. Layout is rebuilt from the place of every glyph: see :mod:`pipeline.read.layout`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from pipeline.errors import DamagedFileError, NoTextError, PasswordRequiredError, ReaderLimitError
from pipeline.read.builder import DocumentBuilder, Hints
from pipeline.read.dates import created, iso_of_pdf
from pipeline.read.layout import furniture
from pipeline.read.layout.flow import body_of, pour
from pipeline.read.layout.headings import OutlineEntry
from pipeline.read.layout.segments import PageText, read_page
from pipeline.read.salvage import salvage
from pipeline.types import Document

MEDIA_TYPES = ("application/pdf", "application/x-pdf")
SUFFIXES = (".pdf",)

MAX_PAGES = 20_000
"""More pages than any book; a file of a few kilobytes can claim millions."""

_MAX_OUTLINE = 20_000
_MAX_TITLE_CHARS = 200
_TITLE_SIZE = 1.25
_METADATA = {"Author": "author", "Subject": "subject", "Keywords": "keywords"}
_RUBBISH_TITLE = re.compile(
    r"microsoft word - .*|.*\.(?:pdf|docx?|rtf|indd|qxd|tex|dvi|xlsx?|pptx?|html?|p65|fm|eps)|untitled.*|"
    r"(?:document|slide|page|title|print)\s?\d*|adobe .*|scan\w*\d*|[\W\d_]*|.*\\.*|about:blank|pdf",
    re.I,
)


def read(data: bytes, hints: Hints) -> Document:
    """The text of every page in reading order, with page map, headings, table rows and footnotes.

    Raises PasswordRequiredError, DamagedFileError, NoTextError (no text layer) and ReaderLimitError.
    """
    builder = DocumentBuilder()
    file = _open(data, hints, builder)
    try:
        count = len(file)
        if count > MAX_PAGES:
            raise ReaderLimitError(
                f"{hints.name} has {count:,} pages; the limit is {MAX_PAGES:,}.", remedy="Split the file."
            )
        pages = list(_pages(file, builder))
        _check_text(pages, count, hints, builder)
        stripped, printed = furniture.strip(pages)
        labels = {n: _label(file, n) or printed.get(n, "") for n in range(1, count + 1)}
        pour(stripped, builder, list(_outline(file)), labels)
        metadata = file.get_metadata_dict(skip_empty=True)
        return builder.build(
            title=_title(metadata.get("Title", ""), stripped, hints),
            media_type=MEDIA_TYPES[0],
            metadata={"pages": count, **_kept(metadata)},
        )
    finally:
        file.close()


def _open(data: bytes, hints: Hints, builder: DocumentBuilder) -> Any:  # noqa: ANN401 - a PdfDocument
    """The file, mended where its page tree is lost. PDFium tries the empty password by itself."""
    file = _load(data, hints)
    if file is None or len(file) == 0:
        mended = salvage(data)
        file = _load(mended, hints) if mended else None
        if file is None or len(file) == 0:
            raise _damaged(hints, "it has no readable structure and no page that could be recovered")
        builder.warn(
            f"The file is damaged: its list of pages is lost. {len(file)} page(s) were recovered, "
            "perhaps not all and not in order."
        )
    return file


def _load(data: bytes, hints: Hints) -> Any:  # noqa: ANN401 - a PdfDocument, or None where it is damaged
    try:
        return pypdfium2.PdfDocument(data, password=hints.password)
    except pypdfium2.PdfiumError as error:
        if pdfium.FPDF_GetLastError() != pdfium.FPDF_ERR_PASSWORD:
            return None
        wrong = "The password given for" if hints.password else "A password is needed to open"
        raise PasswordRequiredError(
            f"{wrong} {hints.name}{' is wrong' if hints.password else ''}.",
            remedy="Send the password with the file, or save the file without one.",
        ) from error


def _damaged(hints: Hints, why: str) -> DamagedFileError:
    return DamagedFileError(
        f"{hints.name} is not a valid PDF: {why}.",
        remedy="Download or export it again; a PDF program may be able to repair it by saving it anew.",
    )


def _pages(file: Any, builder: DocumentBuilder) -> Iterator[PageText]:  # noqa: ANN401 - a PdfDocument
    for index in range(len(file)):
        try:
            page = file[index]
        except pypdfium2.PdfiumError:
            builder.warn(f"Page {index + 1} is damaged and could not be read.")
            continue
        try:
            yield read_page(page, index + 1)
        except pypdfium2.PdfiumError:
            builder.warn(f"The text of page {index + 1} is damaged and could not be read.")
        finally:
            page.close()


def _check_text(pages: Sequence[PageText], count: int, hints: Hints, builder: DocumentBuilder) -> None:
    """Raise where there is no text at all, and say which pages show something that is not text."""
    if not pages:
        raise _damaged(hints, f"none of its {count} pages can be read")
    readable = [page.number for page in pages if page.segments or page.turned]
    garbled = [page.number for page in pages if page.garbled]
    silent = [page.number for page in pages if page.number not in {*readable, *garbled} and page.inked]
    if not readable:
        raise NoTextError(
            f"{hints.name} has {count} page{'s' * (count > 1)} but no "
            f"{'readable text' if garbled else 'text layer'}; it needs OCR.",
            remedy="Run OCR on it (for example with OCRmyPDF) and add the result.",
        )
    if silent:
        builder.warn(
            f"No text on {_ranges(silent)}, which show images only; OCR would be needed to read them."
        )
    if garbled:
        builder.warn(
            f"The fonts on {_ranges(garbled)} do not say which characters they show, so the text there was "
            "left out; OCR would be needed to read it."
        )


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers as "page 3" or "pages 2, 5-9"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    listed = ", ".join(f"{a}-{b}" if a < b else str(a) for a, b in spans)
    return f"page{'s' * (len(numbers) > 1)} {listed}"


def _label(file: Any, number: int) -> str:  # noqa: ANN401 - a PdfDocument
    try:
        return str(file.get_page_label(number - 1)).strip()[:40]
    except (pypdfium2.PdfiumError, UnicodeDecodeError):
        return ""


def _outline(file: Any) -> Iterator[OutlineEntry]:  # noqa: ANN401 - a PdfDocument
    """The bookmarks that lead to a page; a damaged outline ends early."""
    try:
        for at, entry in enumerate(file.get_toc()):
            if at == _MAX_OUTLINE:
                return
            target = entry.get_dest()
            index = target.get_index() if target else None
            if index is not None:
                yield OutlineEntry(entry.get_title(), entry.level + 1, index + 1)
    except (pypdfium2.PdfiumError, UnicodeDecodeError):
        return


def _kept(metadata: Mapping[str, str]) -> dict[str, str]:
    told = {key: value.strip() for key, value in metadata.items()}
    kept = {name: told[key] for key, name in _METADATA.items() if told.get(key)}
    return {**kept, **created(iso_of_pdf(told.get("CreationDate", "")))}


def _title(declared: str, pages: Sequence[PageText], hints: Hints) -> str:
    """The declared title unless it is rubbish, else the largest text of page 1, else the file's name."""
    declared = " ".join(declared.split())
    if declared and not _RUBBISH_TITLE.fullmatch(declared):
        return declared
    return _largest(pages) or PurePath(hints.name).stem or hints.name


def _largest(pages: Sequence[PageText]) -> str:
    first = next((page for page in pages if page.segments), None)
    if first is None or first.hidden:
        return ""
    size = max(segment.size for segment in first.segments)
    if size < _TITLE_SIZE * body_of(pages).size:
        return ""
    large = [s for s in first.segments if s.size >= 0.95 * size]
    text = " ".join(s.text for s in sorted(large, key=lambda s: (round(s.baseline), s.x0)))
    return text if 3 <= len(text) <= _MAX_TITLE_CHARS and sum(map(str.isalpha, text)) >= 3 else ""
