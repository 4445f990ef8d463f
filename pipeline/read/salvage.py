"""A PDF whose page tree or cross-reference table is lost, made readable from the objects that are left.

PDFium rebuilds a lost table by itself but gives up where the tree of pages is missing. The pages are
found by their type, and a new tree, catalogue and table are appended, as an incremental update would.
"""

from __future__ import annotations

import re
from collections import Counter

_OBJECT = re.compile(rb"(?<![^\s])(\d{1,7})\s{1,3}(\d{1,5})\s{1,3}obj\b")
_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_PARENT = re.compile(rb"/Parent\s+(\d{1,7})\s+\d{1,5}\s+R")
_MAX_DICTIONARY_BYTES = 20_000
_MAX_OBJECTS = 500_000
_US_LETTER = b"[0 0 612 792]"


def salvage(data: bytes) -> bytes | None:
    """The file with a new page tree, or None where no page is left or the file is encrypted."""
    data = data[max(data.find(b"%PDF-"), 0) :]
    if b"/Encrypt" in data:
        return None
    places: dict[int, tuple[int, int]] = {}
    for match in _OBJECT.finditer(data):
        places[int(match[1])] = match.start(), int(match[2])
        if len(places) > _MAX_OBJECTS:
            return None
    heads = {number: _dictionary(data, place) for number, (place, _) in places.items()}
    pages = sorted(number for number, head in heads.items() if _PAGE.search(head))
    if not pages:
        return None
    parents = Counter(int(found[1]) for page in pages if (found := _PARENT.search(heads[page])))
    free = max(places) + 1
    lost = [number for number, _ in parents.most_common() if number not in places]
    tree = lost[0] if lost else free
    kids = b" ".join(b"%d %d R" % (page, places[page][1]) for page in pages)
    added = {
        tree: b"<</Type/Pages/Count %d/Kids[%s]/MediaBox%s>>" % (len(pages), kids, _US_LETTER),
        free + 1: b"<</Type/Catalog/Pages %d 0 R>>" % tree,
    }
    return _appended(data, places, added, root=free + 1)


def _dictionary(data: bytes, place: int) -> bytes:
    """The beginning of an object, up to its stream or its end."""
    head = data[place : place + _MAX_DICTIONARY_BYTES]
    ends = [end for end in (head.find(b"endobj"), head.find(b"stream")) if end >= 0]
    return head[: min(ends)] if ends else head


def _appended(data: bytes, places: dict[int, tuple[int, int]], added: dict[int, bytes], root: int) -> bytes:
    out = bytearray(data + b"\n")
    entries = dict(places)
    for number, body in added.items():
        entries[number] = len(out), 0
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 1\n0000000000 65535 f \n"
    for number, (place, generation) in sorted(entries.items()):
        if number:
            out += b"%d 1\n%010d %05d n \n" % (number, place, generation)
    out += b"trailer\n<</Size %d/Root %d 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (root + 1, root, table)
    return bytes(out)
