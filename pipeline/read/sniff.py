"""What kind of file this is: its bytes first, then its declared media type, then its name's suffix.

Sniffing happens in the parent process, so it only searches for byte strings and parses nothing.
"""

from __future__ import annotations

import re
from pathlib import PurePath

from pipeline.errors import DamagedFileError, EmptyDocumentError, UnsupportedFormatError

READERS = ("pdf", "docx", "epub", "html", "markdown", "text", "jats", "rtf", "eml")
"""Modules of :mod:`pipeline.read`, each the reader of one format."""

SUPPORTED = "PDF, DOCX, EPUB, HTML, Markdown, plain text, JATS XML, RTF and EML"

SUFFIXES = {
    ".pdf": "pdf",
    ".docx": "docx",
    ".docm": "docx",
    ".dotx": "docx",
    ".dotm": "docx",
    ".epub": "epub",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".xml": "jats",
    ".nxml": "jats",
    ".jats": "jats",
    ".rtf": "rtf",
    ".eml": "eml",
}
"""Suffixes that name a supported format, for choosing files from a folder."""

MEDIA_TYPES = {
    "application/pdf": "pdf",
    "application/x-pdf": "pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/epub+zip": "epub",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/markdown": "markdown",
    "text/x-markdown": "markdown",
    "text/plain": "text",
    "application/xml": "jats",
    "text/xml": "jats",
    "application/jats+xml": "jats",
    "application/rtf": "rtf",
    "text/rtf": "rtf",
    "message/rfc822": "eml",
}

_PDF_WINDOW_BYTES = 4096
_HEAD_BYTES = 4096
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_BINARY_CLAIMS = frozenset({"pdf", "docx", "epub"})
_FOREIGN = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"%!PS", "a PostScript file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"SQLite format 3", "an SQLite database"),
)
_ZIP_MEMBERS = (
    (b"mimetypeapplication/epub+zip", "epub"),
    (b"META-INF/container.xml", "epub"),
    (b"word/document", "docx"),
)
_ZIP_FOREIGN = (
    (b"xl/workbook", "an Excel workbook"),
    (b"ppt/presentation", "a PowerPoint presentation"),
    (b"mimetypeapplication/vnd.oasis.opendocument", "an OpenDocument file"),
)
_HEADER_LINE = re.compile(rb"([A-Za-z][A-Za-z0-9-]*):[ \t]?")
_MAIL_HEADERS = frozenset(
    {"from", "to", "cc", "subject", "date", "received", "return-path", "message-id", "mime-version"}
    | {"delivered-to", "reply-to", "sender", "content-type", "in-reply-to", "references", "dkim-signature"}
)
_MAIL_SIGNS = frozenset({"from", "received", "return-path", "message-id", "delivered-to", "mime-version"})
_XML_ROOT = re.compile(rb"<([A-Za-z_][\w.:-]*)[\s/>]")
_HTML_START = re.compile(
    rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_MIN_TEXT_SHARE = 0.95


def detect(data: bytes, name: str = "", media_type: str = "") -> str:
    """The name of the reader for this file.

    Raises EmptyDocumentError for zero bytes, UnsupportedFormatError for a kind without a reader, and
    DamagedFileError where the name or media type promises a format that the bytes are not.
    """
    if not data.strip():
        raise EmptyDocumentError(f"{name or 'The file'} is empty.", remedy="Send a file with content.")
    suffix = PurePath(name).suffix.lower()
    claim = MEDIA_TYPES.get(media_type.partition(";")[0].strip().lower(), "")
    if claim in ("", "text", "jats") or (claim in _BINARY_CLAIMS and suffix in SUFFIXES):
        claim = SUFFIXES.get(suffix, claim)
    found = _signature(data, name, claim) or _markup(data, claim)
    if found:
        return found
    if not _is_text(data[: 64 * _HEAD_BYTES]):
        if claim:
            raise _not_as_claimed(name, claim)
        raise _unsupported(name, "a binary file of unknown kind")
    if claim in _BINARY_CLAIMS:
        raise _not_as_claimed(name, claim)
    return claim or ("eml" if _is_mail(data) else "text")


def _signature(data: bytes, name: str, claim: str) -> str:
    """The reader for a file that starts with a known signature, or an empty string."""
    at = data.find(b"%PDF-", 0, _PDF_WINDOW_BYTES)
    if at == 0 or (at > 0 and (claim == "pdf" or b"startxref" in data[-_PDF_WINDOW_BYTES:])):
        return "pdf"
    if data.startswith(_OLE):
        return _ole(data, name)
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(data, name, claim)
    if data.startswith(b"{\\rtf"):
        return "rtf"
    for magic, what in _FOREIGN:
        if data.startswith(magic):
            raise _unsupported(name, what)
    return ""


def _ole(data: bytes, name: str) -> str:
    """An OLE container is an encrypted Office file (the reader decrypts it) or an old binary format."""
    if "EncryptedPackage".encode("utf-16-le") in data:
        return "docx"
    if "WordDocument".encode("utf-16-le") in data:
        raise UnsupportedFormatError(
            f"{name} is a Word 97-2003 document (.doc), which has no reader.",
            remedy="Open it in Word or LibreOffice and save it as .docx.",
        )
    raise _unsupported(name, "an old Office file (OLE container)")


def _zip(data: bytes, name: str, claim: str) -> str:
    """Member names are stored plainly in a zip archive, so a search finds them."""
    for member, reader in _ZIP_MEMBERS:
        if member in data:
            return reader
    for member, what in _ZIP_FOREIGN:
        if member in data:
            raise _unsupported(name, what)
    if claim in _BINARY_CLAIMS:
        raise _not_as_claimed(name, claim)
    raise UnsupportedFormatError(
        f"{name} is a zip archive without a document in it.", remedy="Unpack it and add the files inside."
    )


def _markup(data: bytes, claim: str) -> str:
    """HTML, XML or mail, recognised by how its text begins."""
    head = _ascii_head(data)
    if _HTML_START.match(head):
        return "html"
    if head.startswith(b"<?xml") or head.startswith(b"<!DOCTYPE") or (claim == "jats" and head[:1] == b"<"):
        root = _XML_ROOT.search(head)
        return "html" if claim == "html" or (root and root[1].lower() == b"html") else "jats"
    if claim in ("", "text") and _is_mail(head):
        return "eml"
    return ""


def _ascii_head(data: bytes) -> bytes:
    """The beginning without byte order mark, with UTF-16 thinned to its ASCII bytes."""
    head = data[:_HEAD_BYTES]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or (head[:1] == b"<" and head[1:2] == b"\x00"):
        head = head.replace(b"\x00", b"")
    return head.removeprefix(b"\xef\xbb\xbf").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff").lstrip()


def _is_mail(head: bytes) -> bool:
    """At least three header lines before anything else, one of them written by a mail program."""
    names = set()
    for line in head[:_HEAD_BYTES].splitlines():
        header = _HEADER_LINE.match(line)
        if header:
            names.add(header[1].decode().lower())
        elif not line.startswith((b" ", b"\t", b"From ")):
            break
    return len(names & _MAIL_HEADERS) >= 3 and bool(names & _MAIL_SIGNS)


def _is_text(sample: bytes) -> bool:
    """Whether the bytes look like text in some encoding: few control characters, or UTF-16's zeros."""
    if sample.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return True
    if b"\x00" in sample:
        even, odd = sample[::2].count(0), sample[1::2].count(0)
        return max(even, odd) > 0.3 * (len(sample) / 2) and min(even, odd) < 0.02 * len(sample) + 1
    control = sum(sample.count(code) for code in range(32) if code not in (7, 8, 9, 10, 12, 13, 26, 27))
    return control <= (1 - _MIN_TEXT_SHARE) * len(sample)


def _not_as_claimed(name: str, claim: str) -> DamagedFileError:
    return DamagedFileError(
        f"{name or 'The file'} is not a valid {claim.upper()} file: its bytes are of another kind.",
        remedy="Check that it was downloaded or exported completely; then send the original again.",
    )


def _unsupported(name: str, what: str) -> UnsupportedFormatError:
    ocr = "Run OCR on it first, or convert" if "image" in what else "Convert"
    return UnsupportedFormatError(
        f"{name or 'The file'} is {what}, which has no reader.",
        remedy=f"{ocr} it to a supported format: {SUPPORTED}.",
    )
