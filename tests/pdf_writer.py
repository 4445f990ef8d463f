"""Small PDF files for tests of the reader: lines of text at given places, in the standard fonts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 612, 792


@dataclass(frozen=True)
class Line:
    """Text whose baseline begins ``x`` points from the left and ``y`` points from the top."""

    x: float
    y: float
    text: str
    size: float = 10
    bold: bool = False


def stack(texts: Sequence[str], x: float, y: float, leading: float = 12, size: float = 10) -> list[Line]:
    """Lines below each other."""
    return [Line(x, y + leading * i, text, size) for i, text in enumerate(texts)]


def pdf(
    pages: Sequence[Sequence[Line]],
    *,
    title: str = "",
    created: str = "",
    outline: Sequence[tuple[str, int]] = (),
    rotate: int = 0,
) -> bytes:
    """A PDF file. ``outline`` holds titles with their page, counted from 1, ``created`` is written as it
    is. On a page turned by ``rotate`` degrees the lines are drawn so that they are upright when shown."""
    count = len(pages)
    first_mark = 6 + 2 * count
    bodies = {
        1: b"<</Type/Catalog/Pages 2 0 R%s>>" % (b"/Outlines 5 0 R" if outline else b""),
        2: b"<</Type/Pages/Count %d/Kids[%s]>>"
        % (count, b" ".join(b"%d 0 R" % (6 + 2 * i) for i in range(count))),
        3: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
        4: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica-Bold/Encoding/WinAnsiEncoding>>",
        5: b"<</Type/Outlines/First %d 0 R/Last %d 0 R/Count %d>>"
        % (first_mark, first_mark + len(outline) - 1, len(outline)),
    }
    for i, lines in enumerate(pages):
        stream = b"\n".join(_drawn(line, rotate) for line in lines)
        bodies[6 + 2 * i] = (
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Rotate %d"
            b"/Resources<</Font<</F1 3 0 R/F2 4 0 R>>>>/Contents %d 0 R>>"
            % (*_paper(rotate), rotate, 7 + 2 * i)
        )
        bodies[7 + 2 * i] = b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream)
    for i, (name, page) in enumerate(outline):
        links = b"/Prev %d 0 R" % (first_mark + i - 1) if i else b""
        links += b"/Next %d 0 R" % (first_mark + i + 1) if i + 1 < len(outline) else b""
        bodies[first_mark + i] = b"<</Title(%s)/Parent 5 0 R/Dest[%d 0 R/Fit]%s>>" % (
            _escaped(name),
            4 + 2 * page,
            links,
        )
    information = max(bodies) + 1
    bodies[information] = b"<</Title(%s)/CreationDate(%s)>>" % (_escaped(title), _escaped(created))
    return _file(bodies, information)


def _paper(rotate: int) -> tuple[int, int]:
    return (HEIGHT, WIDTH) if rotate in (90, 270) else (WIDTH, HEIGHT)


def _drawn(line: Line, rotate: int) -> bytes:
    up = HEIGHT - line.y
    placed = {
        0: (1, 0, 0, 1, line.x, up),
        90: (0, 1, -1, 0, HEIGHT - up, line.x),
        180: (-1, 0, 0, -1, WIDTH - line.x, HEIGHT - up),
        270: (0, -1, 1, 0, up, WIDTH - line.x),
    }[rotate]
    font = b"F2" if line.bold else b"F1"
    matrix = b" ".join(b"%.2f" % number for number in placed)
    return b"BT /%s %.2f Tf %s Tm (%s) Tj ET" % (font, line.size, matrix, _escaped(line.text))


def _escaped(text: str) -> bytes:
    data = text.encode("cp1252")
    return data.replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def _file(bodies: dict[int, bytes], information: int) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    places = {}
    for number, body in sorted(bodies.items()):
        places[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 1\n0000000000 65535 f \n"
    for number, place in places.items():
        out += b"%d 1\n%010d 00000 n \n" % (number, place)
    out += b"trailer\n<</Size %d/Root 1 0 R/Info %d 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (
        information + 1,
        information,
        table,
    )
    return bytes(out)
