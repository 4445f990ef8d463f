"""E-mail (RFC 5322, MIME): headers, the text of the body, and the names of what is attached.

The body's plain text is preferred to its HTML. A charset that does not exist, or a broken header,
costs nothing: the bytes are decoded by detection.
"""

from __future__ import annotations

import email.header
import email.message
import email.parser
import email.policy
import email.utils
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from pipeline.errors import DamagedFileError, EmptyDocumentError, UnsupportedFormatError
from pipeline.read.builder import DocumentBuilder, Hints, clean
from pipeline.read.dates import created
from pipeline.read.encoding import decode
from pipeline.read.flow import pieces, pour
from pipeline.read.markup import parse_html, text_of
from pipeline.read.reflow import reflow
from pipeline.read.text import from_text
from pipeline.types import Document

MEDIA_TYPES = ("message/rfc822",)
SUFFIXES = (".eml",)

_SHOWN = ("From", "To", "Cc", "Date")
_METADATA = {"From": "from", "To": "to", "Cc": "cc", "Message-ID": "message_id"}
_FLOWED = re.compile(r" \n(?=[^\n>])")
_MAX_PARTS = 1000
_MAX_NAMED = 20
_MAX_HEADER_CHARS = 2000


def read(data: bytes, hints: Hints) -> Document:
    """Raises UnsupportedFormatError when no part of the mail is text, EmptyDocumentError for a mail
    without words, DamagedFileError for what is no mail."""
    message = _parsed(data)
    headers = {name: _header(message, name) for name in ("Subject", *_SHOWN, "Message-ID")}
    if not any(headers.values()):
        raise DamagedFileError(
            "The file has none of a mail's headers.", remedy="Export the message again as .eml."
        )
    builder = DocumentBuilder()
    builder.add("heading", headers["Subject"], level=1)
    builder.add("paragraph", "\n".join(f"{name}: {headers[name]}" for name in _SHOWN if headers[name]))
    attached: list[str] = []
    bodies = list(_bodies(message, attached))
    for part in bodies:
        _add_body(builder, part)
    if not bodies:
        raise UnsupportedFormatError(
            f"No part of the mail is text ({message.get_content_type()}).",
            remedy="Save its attachments and add those.",
        )
    if not len(builder):
        raise EmptyDocumentError("The mail has no text.", remedy="Send a mail with text in it.")
    if attached:
        named = ", ".join(attached[:_MAX_NAMED]) + (", …" if len(attached) > _MAX_NAMED else "")
        builder.warn(f"Attachments were not read: {named}. Add them as files of their own.")
    title = headers["Subject"] or PurePath(hints.name).stem
    return builder.build(title=title, media_type=MEDIA_TYPES[0], metadata=_metadata(headers))


def _parsed(data: bytes) -> email.message.Message:
    # The older policy keeps headers as they came; the newer one raises on malformed ones.
    try:
        return email.parser.BytesParser(policy=email.policy.compat32).parsebytes(data)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(
            f"The mail cannot be parsed: {error}.", remedy="Export the message again as .eml."
        ) from error


def _header(message: email.message.Message, name: str) -> str:
    """One header as text, encoded words decoded, on one line."""
    raw = message.get(name)
    if raw is None:
        return ""
    try:
        words = email.header.decode_header(raw)
    except (email.errors.HeaderParseError, ValueError, LookupError, AttributeError):
        words = [(str(raw), None)]
    shown = "".join(
        word if isinstance(word, str) else _word(word, str(charset or "")) for word, charset in words
    )
    return " ".join(clean(shown).split())[:_MAX_HEADER_CHARS]


def _word(word: bytes, charset: str) -> str:
    try:
        return decode(word, declared="" if charset == "unknown-8bit" else charset).text
    except (DamagedFileError, EmptyDocumentError):
        return word.decode("latin-1") if not word.strip() else ""


def _bodies(message: email.message.Message, attached: list[str]) -> Iterator[email.message.Message]:
    """The parts that a mail program shows. Names of all others are added to ``attached``.

    Iterative, because a mail may nest its parts as deep as it likes.
    """
    waiting = [message]
    seen = 0
    while waiting and seen < _MAX_PARTS:
        part = waiting.pop(0)
        seen += 1
        name = part.get_filename()
        kind = part.get_content_type()
        disposition = str(part.get("Content-Disposition") or "").lower()
        if disposition.lstrip().startswith("attachment") or (name and not kind.startswith("multipart/")):
            attached.append(_attachment_name(part))
        elif kind == "multipart/alternative":
            waiting[:0] = _best(_children(part))
        elif kind == "multipart/related":
            waiting[:0] = _children(part)[:1]
        elif part.is_multipart():
            waiting[:0] = _children(part)
        elif kind in ("text/plain", "text/html"):
            yield part
        else:
            attached.append(_attachment_name(part))
    if waiting:
        attached.append(f"{len(waiting)} further parts")


def _children(part: email.message.Message) -> list[email.message.Message]:
    payload = part.get_payload()
    return (
        [inner for inner in payload if isinstance(inner, email.message.Message)]
        if isinstance(payload, list)
        else []
    )


def _best(alternatives: list[email.message.Message]) -> list[email.message.Message]:
    """Plain text unless it is empty, else the last form, which is the richest."""
    for part in alternatives:
        if part.get_content_type() == "text/plain" and _payload(part).strip():
            return [part]
    return alternatives[-1:]


def _attachment_name(part: email.message.Message) -> str:
    name = part.get_filename()
    return " ".join(clean(str(name)).split())[:200] if name else part.get_content_type()


def _payload(part: email.message.Message) -> bytes:
    """The body's bytes with the transfer encoding undone."""
    try:
        payload = part.get_payload(decode=True)
    except (ValueError, LookupError, AssertionError):
        payload = None
    return payload if isinstance(payload, bytes) else b""


def _add_body(builder: DocumentBuilder, part: email.message.Message) -> None:
    payload = _payload(part)
    if not payload.strip():
        return
    charset = _parameter(part, "charset")
    html = part.get_content_type() == "text/html"
    decoded = text_of(payload, declared=charset) if html else decode(payload, declared=charset)
    for warning in decoded.warnings:
        builder.warn(warning)
    if html:
        pour(builder, pieces(parse_html(decoded.text, builder.warn)))
        return
    text = clean(decoded.text)
    if _parameter(part, "format").lower() == "flowed":
        text = _FLOWED.sub("" if _parameter(part, "delsp").lower() == "yes" else " ", text)
    document = from_text(reflow(text))
    for block in document.blocks:
        builder.add(block.kind, document.text[block.start : block.end], level=block.level + 1)


def _parameter(part: email.message.Message, name: str) -> str:
    """A parameter of Content-Type, as far as it can be made out."""
    try:
        value = part.get_param(name)
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
    text = value[2] if isinstance(value, tuple) else value
    return str(text or "").partition('"Content-')[0].strip('" ')


def _metadata(headers: dict[str, str]) -> dict[str, Any]:
    found = {key: headers[name] for name, key in _METADATA.items() if headers[name]}
    try:
        found["date"] = email.utils.parsedate_to_datetime(headers["Date"]).isoformat()
        found |= created(found["date"])
    except (ValueError, TypeError, IndexError, OverflowError):
        if headers["Date"]:
            found["date"] = headers["Date"]
    return found
