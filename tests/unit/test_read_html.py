"""Web pages: what is kept, what is left out, and in what shape."""

from __future__ import annotations

import pytest

from pipeline.errors import EmptyDocumentError
from pipeline.read import html
from pipeline.read.builder import Hints
from pipeline.types import Document

BLOG = """<!doctype html><html lang=en><head><title>How to | Blog</title><meta name=author content="Ann">
<style>p{}</style></head><body>
<header class="site-header"><a href=/>Home</a> <a href=/b>Blog</a> <button>Menu</button></header>
<nav><ul><li><a>One</a></ul></nav>
<div class="cookie-banner">We use cookies <button>OK</button></div>
<ul><li><a href=1>Docs</a><li><a href=2>Pricing</a><li><a href=3>Login</a></ul>
<article><header><h1>How to bake</h1><p class="byline">By Ann, 2 May</p></header>
<p>Bread is made from flour, water, salt<br>and yeast. Use 10<sup>3</sup> g.<sup><a
href="#fn1">1</a></sup></p>
<aside class="pull">A loaf a day.</aside>
<h2 id=steps>Steps<a class="headerlink" href="#steps">¶</a></h2>
<ol><li>Mix<ul><li>flour<li>water</ul><li>Knead</ol>
<pre><code>oven = 230
  bake(oven)
</code></pre>
<dl><dt>Crumb</dt><dd>The inside.</dd></dl>
<table><caption>Times</caption><thead><tr><th>Loaf<th>Min<th>Note</thead>
<tr><td>Small<td>25<td><tr><td>Big<td>40<td>!</table>
<p hidden>secret</p><p style="display: none">secret</p>
<p>Formula <math><mfrac><mi>a</mi><mi>b</mi></mfrac><mo>=</mo><msup><mi>x</mi><mn>2</mn></msup></math> ok.
<p>Ruby: <ruby>漢字<rt>かんじ</rt></ruby> and soft&shy;hyphen, non&nbsp;break.
<div class="share-buttons"><a href=t>Tweet</a><a href=f>Share</a></div></article>
<div class=related><h3>Related posts</h3><ul><li><a href=x>Other</a></ul></div>
<footer>© 2024 Ann. <a href=p>Privacy</a></footer><script>x()</script></body></html>"""

FILING = """<?xml version='1.0' encoding='ASCII'?><html xmlns="http://www.w3.org/1999/xhtml"
xmlns:ix="http://www.xbrl.org/2013/inlineXBRL"><head><title>acme-20231231</title></head><body>
<div style="display:none"><ix:header><ix:hidden>0000012345</ix:hidden></ix:header></div><div id="i1"/>
<div style="text-align:center"><span style="font-weight:700;font-size:14pt">ACME CORPORATION</span></div>
<div><span style="font-weight:700">PART I</span></div>
<div><span style="font-weight:700">Item 1.  Business</span></div>
<div><span style="font-weight:700;font-style:italic">Overview</span></div>
<div><span>We make anvils. </span><span>Our fiscal year ends on <b>December 31</b>.</span></div>
<table><tr><td style="width:1%"></td><td>&#8226;</td><td>A risk.</td></tr></table>
<table>
<tr><td colspan="3"></td><td colspan="3">2023</td><td colspan="3"></td><td colspan="3">2022</td></tr>
<tr><td colspan="3">Net sales</td><td>$</td><td>1,234</td><td></td><td colspan="3"></td><td>$</td>
<td>(1,000</td><td>)</td></tr>
<tr><td colspan="3">Margin</td><td colspan="2">12.5</td><td>%</td>
<td colspan="3"></td><td colspan="2">11.0</td><td>%</td></tr>
</table><table><tr><td><table><tr><td>in a</td><td>in b</td></tr></table></td>
<td><p>Beside it.</p></td></tr></table>
<div><span style="font-weight:700">Item 7. Management&#8217;s Discussion</span></div>
<div>Text of item seven.</div>
</body></html>"""


def read(page: str | bytes, media_type: str = "text/html") -> Document:
    return html.read(page if isinstance(page, bytes) else page.encode(), Hints("page.html", media_type))


def shown(document: Document) -> list[tuple[str, str]]:
    return [(b.kind, document.text[b.start : b.end]) for b in document.blocks]


def test_article_without_the_site_around_it() -> None:
    document = read(BLOG)
    assert shown(document) == [
        ("heading", "How to bake"),
        ("paragraph", "By Ann, 2 May"),
        ("paragraph", "Bread is made from flour, water, salt\nand yeast. Use 10^3 g."),
        ("paragraph", "A loaf a day."),
        ("heading", "Steps"),
        ("list_item", "1. Mix"),
        ("list_item", "flour"),
        ("list_item", "water"),
        ("list_item", "2. Knead"),
        ("code", "oven = 230\n  bake(oven)"),
        ("list_item", "Crumb"),
        ("list_item", "The inside."),
        ("caption", "Times"),
        ("table_row", "Loaf | Min | Note"),
        ("table_row", "Small | 25 |"),
        ("table_row", "Big | 40 | !"),
        ("paragraph", "Formula a/b = x^2 ok."),
        ("paragraph", "Ruby: 漢字 and softhyphen, non break."),
    ]
    assert (document.title, document.metadata) == ("How to | Blog", {"author": "Ann", "language": "en"})


def test_filing_whose_headings_are_bold_and_whose_tables_arrange_the_page() -> None:
    document = read(FILING)
    assert [(s.level, s.title) for s in document.sections] == [
        (4, "ACME CORPORATION"),
        (1, "PART I"),
        (2, "Item 1. Business"),
        (5, "Overview"),
        (2, "Item 7. Management’s Discussion"),
    ]
    rows = [text for kind, text in shown(document) if kind == "table_row"]
    assert rows == ["2023 | 2022", "Net sales | $ 1,234 | $ (1,000)", "Margin | 12.5% | 11.0%", "in a | in b"]
    assert ("list_item", "• A risk.") in shown(document)
    assert ("paragraph", "Beside it.") in shown(document)
    assert "0000012345" not in document.text


def test_real_headings_are_not_joined_by_bold_paragraphs() -> None:
    document = read("<h1>Real</h1><p><b>Bold words</b></p><p>Plain words</p>")
    assert [s.title for s in document.sections] == ["Real"]


@pytest.mark.parametrize(
    "page",
    [
        '<meta charset="windows-1251"><p>Привет, мир</p>'.encode("cp1251"),
        '<meta http-equiv="Content-Type" content="text/html; charset=koi8-r"><p>Привет, мир</p>'.encode(
            "koi8_r"
        ),
        '<?xml version="1.0" encoding="windows-1251"?><html><p>Привет, мир</p></html>'.encode("cp1251"),
        "<html><p>Привет, мир</p></html>".encode("utf-16"),
        "<html><p>Привет, мир</p></html>".encode(),
    ],
)
def test_declared_and_marked_encodings(page: bytes) -> None:
    assert read(page).text == "Привет, мир"


def test_charset_of_the_transfer_is_believed_first() -> None:
    page = '<meta charset="utf-8"><p>Привет</p>'.encode("cp1251")
    assert read(page, "text/html; charset=windows-1251").text == "Привет"


def test_xhtml_with_empty_elements_and_named_characters() -> None:
    page = (
        '<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body><script src="x"/>'
        "<p>A&nbsp;&eacute;&lt;b&gt;</p><div/><p>B</p></body></html>"
    )
    assert read(page).text == "A é<b>\n\nB"


def test_entities_are_never_expanded() -> None:
    page = (
        '<?xml version="1.0"?><!DOCTYPE html [<!ENTITY a "boom"><!ENTITY f SYSTEM "file:///etc/passwd">]>'
        '<html xmlns="http://www.w3.org/1999/xhtml"><body><p>before &a; &f; after</p></body></html>'
    )
    text = read(page).text
    assert "boom" not in text
    assert "root:" not in text
    assert "before" in text
    assert "after" in text


def test_what_calls_itself_a_menu_but_holds_the_text_is_kept() -> None:
    words = "These are the words of the page, and there are quite a few of them. " * 20
    assert (
        words.strip()
        in read(f'<body><div class="sidebar nav menu"><p>{words}</p></div><p>Short.</p></body>').text
    )


def test_page_of_links_only_keeps_them() -> None:
    assert "Alpha" in read('<ul><li><a href="a">Alpha</a></li><li><a href="b">Beta</a></li></ul>').text


def test_very_deep_nesting_is_read_or_said() -> None:
    assert read("<div>" * 1000 + "deep" + "</div>" * 1000 + "<p>after</p>").text == "deep\n\nafter"
    document = read("<p>first</p>" + "<div>" * 5000 + "deep")
    assert document.text == "first"
    assert "2,048" in document.warnings[0]


def test_code_with_line_numbers_beside_it() -> None:
    page = '<table><tr><td class="linenos"><pre>1\n2</pre></td><td><pre>a = 1\nb = 2</pre></td></tr></table>'
    assert shown(read(page)) == [("code", "a = 1\nb = 2")]


def test_page_without_words() -> None:
    with pytest.raises(EmptyDocumentError):
        read(b"   \n")
    assert read("<html><body><script>1</script></body></html>").text == ""
