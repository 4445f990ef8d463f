"""Small documents of each format, built from their parts, for tests of the readers."""

from __future__ import annotations

import io
import zipfile

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_RELS = "http://schemas.openxmlformats.org/package/2006/relationships"
_MATH = "http://schemas.openxmlformats.org/officeDocument/2006/math"
_COMPAT = "http://schemas.openxmlformats.org/markup-compatibility/2006"

STYLES = """
<w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/>
  <w:pPr><w:outlineLvl w:val="0"/></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="berschrift2"><w:name w:val="heading 2"/>
  <w:pPr><w:numPr><w:ilvl w:val="1"/><w:numId w:val="7"/></w:numPr></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="Mine"><w:name w:val="Mine"/><w:basedOn w:val="berschrift1"/></w:style>
<w:style w:type="paragraph" w:styleId="Titel"><w:name w:val="Title"/></w:style>
<w:style w:type="paragraph" w:styleId="Verzeichnis1"><w:name w:val="toc 1"/></w:style>
<w:style w:type="paragraph" w:styleId="Beschriftung"><w:name w:val="caption"/></w:style>
"""
NUMBERING = """
<w:abstractNum w:abstractNumId="1">
  <w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="upperRoman"/><w:lvlText w:val="%1."/></w:lvl>
  <w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:lvlText w:val="%1.%2"/></w:lvl>
  <w:lvl w:ilvl="2"><w:start w:val="1"/><w:numFmt w:val="lowerLetter"/><w:lvlText w:val="(%3)"/></w:lvl>
</w:abstractNum>
<w:abstractNum w:abstractNumId="2">
  <w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="bullet"/><w:lvlText w:val=""/></w:lvl>
</w:abstractNum>
<w:num w:numId="7"><w:abstractNumId w:val="1"/></w:num>
<w:num w:numId="8"><w:abstractNumId w:val="2"/></w:num>
<w:num w:numId="9"><w:abstractNumId w:val="1"/>
  <w:lvlOverride w:ilvl="0"><w:startOverride w:val="5"/></w:lvlOverride></w:num>
"""


def paragraph(text: str, style: str = "", properties: str = "") -> str:
    """A Word paragraph; ``text`` may hold markup of runs."""
    styled = f'<w:pStyle w:val="{style}"/>' if style else ""
    runs = text if text.startswith("<") else f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'
    return f"<w:p><w:pPr>{styled}{properties}</w:pPr>{runs}</w:p>"


def docx(
    body: str, *, footnotes: str = "", core: str = "", app: str = "", extra: dict[str, str] | None = None
) -> bytes:
    """A Word document whose body is the given XML."""
    spaces = f'xmlns:w="{W}" xmlns:m="{_MATH}" xmlns:mc="{_COMPAT}"'
    parts = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "_rels/.rels": _relations(
            ("officeDocument", "word/document.xml"),
            ("metadata/core-properties", "docProps/core.xml"),
            ("extended-properties", "docProps/app.xml"),
        ),
        "word/_rels/document.xml.rels": _relations(
            ("styles", "styles.xml"), ("numbering", "numbering.xml"), ("footnotes", "footnotes.xml")
        ),
        "word/document.xml": f"<w:document {spaces}><w:body>{body}</w:body></w:document>",
        "word/styles.xml": f"<w:styles {spaces}>{STYLES}</w:styles>",
        "word/numbering.xml": f"<w:numbering {spaces}>{NUMBERING}</w:numbering>",
        "word/footnotes.xml": f"<w:footnotes {spaces}>{footnotes}</w:footnotes>",
        "word/header1.xml": f"<w:hdr {spaces}>{paragraph('RUNNING HEAD')}</w:hdr>",
        "docProps/core.xml": f'<c xmlns:dc="http://purl.org/dc/elements/1.1/">{core}</c>',
        "docProps/app.xml": f"<Properties>{app}</Properties>",
    }
    return archive({**parts, **(extra or {})})


def _relations(*targets: tuple[str, str]) -> str:
    found = "".join(
        f'<Relationship Id="r{i}" Type="{OFFICE}/{kind}" Target="{target}"/>'
        for i, (kind, target) in enumerate(targets)
    )
    return f'<Relationships xmlns="{_RELS}">{found}</Relationships>'


def epub(
    chapters: dict[str, str],
    *,
    nav: str = "",
    extra: dict[str, str] | None = None,
    title: str = "",
    date: str = "",
) -> bytes:
    """An EPUB of the given XHTML bodies by file name, in order, with ``nav`` as the list of contents."""
    items = "".join(
        f'<item id="c{i}" href="{name}" media-type="application/xhtml+xml"/>'
        for i, name in enumerate(chapters)
    )
    refs = "".join(f'<itemref idref="c{i}"/>' for i in range(len(chapters)))
    spaces = 'xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"'
    pages = {
        f"OEBPS/{name}": f"<html {spaces}><head><title/></head><body>{body}</body></html>"
        for name, body in {**chapters, "nav.xhtml": f'<nav epub:type="toc"><ol>{nav}</ol></nav>'}.items()
    }
    package = f"""<package xmlns="http://www.idpf.org/2007/opf" version="3.0">
      <metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title>
        <dc:creator>Ann Author</dc:creator><dc:language>en</dc:language><dc:date>{date}</dc:date></metadata>
      <manifest>{items}
        <item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/></manifest>
      <spine><itemref idref="nav"/>{refs}</spine></package>"""
    container = """<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
      <rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>"""
    fixed = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": container,
        "OEBPS/book.opf": package,
    }
    return archive({**fixed, **pages, **(extra or {})})


def archive(parts: dict[str, str]) -> bytes:
    """A zip of the given texts."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in parts.items():
            made.writestr(name, text)
    return data.getvalue()


RTF = rb"""{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\froman\fcharset0 Times;}{\f1\fnil\fcharset204 Arial;}}
{\stylesheet{\s0 Normal;}{\s1\outlinelevel0 heading 1;}}
{\info{\title My \'e9tude}{\author Bob}}
\pard\plain \s1\outlinelevel0 {Heading one}\par
\pard\plain First paragraph with \'e9 and \u8364? and {\b bold}
{\footnote {\super\chftn} A note here.} goes on.\par
\pard Second\line third {\*\bkmkstart x}
{\field{\*\fldinst{HYPERLINK "http://a.b"}}{\fldrslt{link text}}}{\deleted gone}.\par
{\listtext\pard 1.\tab}\pard Item one\par
{\pntext\pard\'b7\tab}\pard Item two\par
\trowd\cellx1\cellx2\pard\intbl A1\par more\cell B1\cell\row
\trowd\cellx1\cellx2\pard\intbl A2\cell {\f1 \'cf\'f0\'e8}\cell\trowd\cellx1\cellx2\row
\pard\outlinelevel1 Sub heading\par
{\pict\pngblip 89504e47{\x}0d0a}\pard Emoji \u-10179?\u-8704? and \{braces\} {\v hidden}\par
{\header head text}
}
"""

MAIL = (
    b"Subject: =?utf-8?b?R3LDtsOfZQ==?= of it\r\nFrom: Ann <a@example.org>\r\nTo: Bob <b@example.org>\r\n"
    b"Date: Mon, 1 Jan 2024 10:00:00 +0100\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="xx"\r\n\r\n--xx\r\n'
    b'Content-Type: multipart/alternative; boundary="yy"\r\n\r\n--yy\r\n'
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"The plain caf=C3=A9 text.\r\n\r\n--yy\r\nContent-Type: text/html\r\n\r\n"
    b"<p>The <b>rich</b> text.</p>\r\n--yy--\r\n"
    b'--xx\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename="a.pdf"\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\nJVBERi0=\r\n--xx--\r\n"
)
