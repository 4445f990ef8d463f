"""Bytes to text, in whatever encoding they are.

In order: byte order mark, UTF-16 without one, the declared encoding, UTF-8, and at last a guess by
chardet, which was right for 44 of 44 samples in 30 encodings where charset-normalizer was right for 34.
A guess that chardet itself trusts little becomes a warning of the document.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass

import chardet

from pipeline.errors import DamagedFileError, EmptyDocumentError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# A label often names a subset of what was written; the supersets are those of the WHATWG Encoding Standard.
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
}
_MULTI_BYTE = ("utf", "gb", "big5", "cp932", "cp949", "cp950", "euc", "shift", "iso2022", "johab", "hz")
_WIDE = ("utf-16", "utf-32")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1a\x1b"))
_HIGH_LINE = re.compile(rb"[^\n]*[\x80-\xff][^\n]*\n?")
_SAMPLE_BYTES = 65_536
_MIN_ZERO_SHARE = 0.4
_MAX_CONTROL_SHARE = 0.02
_MAX_FOREIGN_SHARE = 0.05
_LOW_CONFIDENCE = 0.5
# Below this chardet has seen a handful of accents at most, and the commonest encoding is the better guess.
_NO_CONFIDENCE = 0.1
_FALLBACK = "cp1252"


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, the encoding it was in, and what to tell the reader about a guess."""

    text: str
    encoding: str
    warnings: tuple[str, ...] = ()


def decode(data: bytes, *, declared: str = "") -> Decoded:
    """The text of ``data``; ``declared`` is what a header or a meta element calls its encoding.

    Raises EmptyDocumentError when there is nothing but white space, DamagedFileError when the bytes
    are no text in any encoding.
    """
    decoded = _decode(data, _codec(declared))
    if not decoded.text.strip("\ufeff\x00\x1a \t\r\n\f\v\u3000\xa0"):
        raise EmptyDocumentError(
            f"The document is empty ({len(data)} bytes of white space).",
            remedy="Send a file with text in it.",
        )
    return decoded


def _decode(data: bytes, declared: str) -> Decoded:
    for mark, name in _BOMS:
        if data.startswith(mark):
            return _lenient(data[len(mark) :], name)
    wide = _wide(data)
    if wide:
        return _lenient(data, wide)
    _refuse_binary(data)
    if declared and not declared.startswith(_WIDE):
        # A single-byte encoding decodes anything and so proves nothing; valid UTF-8 beyond ASCII does.
        for name in ("utf-8", declared) if _is_single_byte(declared) and not data.isascii() else (declared,):
            if (text := _strict(data, name)) is not None:
                return Decoded(text, name)
    if b"\x1b$" in data and (text := _strict(data, "iso2022_jp_2")) is not None:
        return Decoded(text, "iso2022_jp_2")
    return _utf8(data) or _guess(data)


def _codec(label: str) -> str:
    """Python's name for a declared encoding, or "" if there is no such encoding."""
    try:
        name = codecs.lookup(label.strip().strip("\"'")).name
        "".encode(name)  # rot13 and other transforms are codecs, but not of text
    except (LookupError, ValueError, UnicodeError):
        return ""
    return _SUPERSETS.get(name, name)


def _is_single_byte(name: str) -> bool:
    return not name.startswith(_MULTI_BYTE)


def _strict(data: bytes, name: str) -> str | None:
    try:
        return data.decode(name)
    except (UnicodeError, LookupError):
        return None


def _lenient(data: bytes, name: str) -> Decoded:
    """Decode what can be; a character that cannot becomes U+FFFD, which is told."""
    text = data.decode(name, "replace")
    lost = text.count("\ufffd")
    if not lost or _strict(data, name) is not None:
        return Decoded(text, name)
    if lost > _MAX_FOREIGN_SHARE * len(text) + 1:
        raise _not_text(data)
    return Decoded(text, name, (f"{lost} characters are not valid {name} and were replaced.",))


def _wide(data: bytes) -> str:
    """UTF-16 without a mark shows in its zero bytes: on one side only, in spaces and line ends at least."""
    sample = data[:_SAMPLE_BYTES]
    sample = sample[: len(sample) & ~1]
    if len(data) % 2 or b"\x00" not in sample:
        return ""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    # Where zeros are few, as in Chinese, they must also not be the stray ones of an 8-bit text.
    few = max(even, odd) < _MIN_ZERO_SHARE * len(sample)
    if few and _controls(sample.replace(b"\x00", b"")) == 0 and _strict(data, "utf-8") is not None:
        return ""
    name = "utf-16-le" if odd > even else "utf-16-be"
    text = sample.decode(name, "replace")
    return name if _foreign(text) <= _MAX_FOREIGN_SHARE * len(text) else ""


def _refuse_binary(data: bytes) -> None:
    sample = data[:_SAMPLE_BYTES] + data[-_SAMPLE_BYTES:]
    if _controls(sample) > _MAX_CONTROL_SHARE * len(sample):
        raise _not_text(data)


def _controls(sample: bytes) -> int:
    return len(sample) - len(sample.translate(None, _CONTROLS))


def _utf8(data: bytes) -> Decoded | None:
    """UTF-8, forgiving a few broken bytes in a text that otherwise proves to be UTF-8."""
    if (text := _strict(data, "utf-8")) is not None:
        return Decoded(text, "utf-8")
    text = data.decode("utf-8", "replace")
    lost = text.count("\ufffd")
    beyond_ascii = len(text) - len(text.encode("ascii", "ignore"))
    if lost * 20 > beyond_ascii:
        return None
    return Decoded(text, "utf-8", (f"{lost} characters are not valid UTF-8 and were replaced.",))


def _guess(data: bytes) -> Decoded:
    """What chardet makes of the lines that have something beyond ASCII in them."""
    sample = b""
    for line in _HIGH_LINE.finditer(data):
        sample += line[0][:_SAMPLE_BYTES]
        if len(sample) >= _SAMPLE_BYTES:
            break
    found = chardet.detect(sample, no_match_encoding=_FALLBACK)
    name = _codec(str(found["encoding"])) or _FALLBACK
    confidence = float(found["confidence"] or 0)
    if confidence < _NO_CONFIDENCE and _strict(data, _FALLBACK) is not None:
        name = _FALLBACK
    text = data.decode(name, "replace")
    if _foreign(text[:_SAMPLE_BYTES]) > _MAX_FOREIGN_SHARE * len(text[:_SAMPLE_BYTES]):
        raise _not_text(data)
    warnings = []
    if confidence < _LOW_CONFIDENCE:
        warnings.append(
            f"The text does not say its encoding; it was guessed to be {name} with low confidence "
            f"({confidence:.2f}). If letters look wrong, save the file as UTF-8."
        )
    if lost := text.count("\ufffd"):
        warnings.append(f"{lost} characters are not valid {name} and were replaced.")
    return Decoded(text, name, tuple(warnings))


def _foreign(text: str) -> int:
    """Characters that no real text has: controls, unassigned, private use, surrogates, U+FFFD."""
    plain = text.translate(dict.fromkeys(map(ord, "\t\n\v\f\r\x1a\x1b")))
    return sum(c == "\ufffd" or unicodedata.category(c) in ("Cc", "Cn", "Co", "Cs") for c in plain)


def _not_text(data: bytes) -> DamagedFileError:
    return DamagedFileError(
        f"These {len(data)} bytes are not text in any known encoding (they begin with {data[:8].hex(' ')}).",
        remedy="Send the file with its true name and type, or save it as UTF-8 text.",
    )
