"""Scientific articles: sections, captions, tables, formulas and references."""

from __future__ import annotations

import pytest

from pipeline.errors import DamagedFileError, UnsupportedFormatError
from pipeline.read.builder import Hints
from pipeline.read.jats import read
from pipeline.types import Document

ARTICLE = """<!DOCTYPE article PUBLIC "-//NLM//DTD JATS v1.2//EN" "JATS.dtd">
<article xmlns:mml="http://www.w3.org/1998/Math/MathML" xml:lang="en"><front>
<journal-meta><journal-title-group><journal-title>J. Ducks</journal-title></journal-title-group>
</journal-meta>
<article-meta><article-id pub-id-type="doi">10.1/duck</article-id>
<title-group><article-title>On <italic>ducks</italic></article-title></title-group>
<contrib-group><contrib contrib-type="author"><name><surname>Lee</surname><given-names>Ann</given-names>
</name></contrib>
<contrib contrib-type="editor"><name><surname>Ed</surname><given-names>Itor</given-names></name></contrib>
</contrib-group>
<pub-date><year>2021</year></pub-date><abstract><p>We watched ducks.</p></abstract>
<kwd-group><kwd>duck</kwd><kwd>pond</kwd></kwd-group></article-meta></front>
<body><sec><label>1</label><title>Introduction</title>
<p>Ducks swim<sup><xref ref-type="bibr" rid="r1">1</xref>,<xref ref-type="bibr" rid="r2">2</xref>
</sup> and&nbsp;fly
(<xref ref-type="bibr" rid="r1">Lee, 2019</xref>).<fn id="f1"><label>a</label><p>Mostly.</p>
</fn> They also walk.</p>
<sec><label>1.1</label><title>Speed</title><p>At 10<sup>3</sup> m:
<disp-formula><label>(1)</label><alternatives>
<tex-math>\\documentclass{x}\\begin{document}$$v$$\\end{document}</tex-math>
<mml:math><mml:mi>v</mml:mi><mml:mo>=</mml:mo><mml:mfrac><mml:mi>s</mml:mi><mml:mi>t</mml:mi></mml:mfrac>
</mml:math>
</alternatives></disp-formula> holds.</p>
<list list-type="order"><list-item><p>walk</p></list-item><list-item><p>swim</p></list-item></list>
<fig><label>Figure 1.</label><caption><title>A duck.</title><p>Seen from above.</p></caption><graphic/>
</fig>
<table-wrap><label>Table 1.</label><caption><title>Counts</title></caption><table><thead><tr><th>Pond</th>
<th>n</th></tr>
</thead><tbody><tr><td>North</td><td>12</td></tr></tbody></table></table-wrap></sec></sec></body>
<back><ref-list><title>References</title>
<ref id="r1"><label>1</label><element-citation><person-group><name><surname>Lee</surname>
<given-names>A</given-names></name>
</person-group><year>2019</year><article-title>Early ducks</article-title><source>J. Ducks</source>
<volume>2</volume>
<fpage>3</fpage><lpage>9</lpage></element-citation></ref>
<ref id="r2"><mixed-citation>Roe B. Ponds. 2001.</mixed-citation></ref></ref-list>
<ack><p>We thank the ducks.</p></ack></back>
<sub-article><front-stub><title-group><article-title>Decision letter</article-title></title-group>
</front-stub>
<body><p>Accept.</p></body></sub-article></article>"""


def shown(document: Document) -> list[tuple[str, str]]:
    return [(b.kind, document.text[b.start : b.end]) for b in document.blocks]


def test_article_in_reading_order_with_references_last() -> None:
    document = read(ARTICLE.encode(), Hints("a.nxml"))
    assert shown(document) == [
        ("heading", "On ducks"),
        ("paragraph", "Ann Lee"),
        ("heading", "Abstract"),
        ("paragraph", "We watched ducks."),
        ("paragraph", "Keywords: duck, pond"),
        ("heading", "1 Introduction"),
        ("paragraph", "Ducks swim[1,2] and fly (Lee, 2019). They also walk."),
        ("footnote", "a Mostly."),
        ("heading", "1.1 Speed"),
        ("paragraph", "At 10^3 m:"),
        ("paragraph", "(1) v = s/t"),
        ("paragraph", "holds."),
        ("list_item", "1. walk"),
        ("list_item", "2. swim"),
        ("caption", "Figure 1. A duck."),
        ("caption", "Seen from above."),
        ("caption", "Table 1. Counts"),
        ("table_row", "Pond | n"),
        ("table_row", "North | 12"),
        ("heading", "Acknowledgements"),
        ("paragraph", "We thank the ducks."),
        ("heading", "Decision letter"),
        ("paragraph", "Accept."),
        ("heading", "References"),
        ("list_item", "1 A Lee (2019). Early ducks. J. Ducks 2:3–9"),
        ("list_item", "Roe B. Ponds. 2001."),
    ]
    assert [(s.level, s.title) for s in document.sections] == [
        (1, "On ducks"),
        (2, "Abstract"),
        (2, "1 Introduction"),
        (3, "1.1 Speed"),
        (2, "Acknowledgements"),
        (1, "Decision letter"),
        (1, "References"),
    ]
    assert document.metadata["doi"] == "10.1/duck"
    assert document.metadata["author"] == "Ann Lee"


def test_other_xml_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFormatError, match="<feed>"):
        read(b"<feed><entry>x</entry></feed>", Hints("a.xml"))


def test_broken_and_hostile_xml() -> None:
    with pytest.raises(DamagedFileError, match="not well-formed"):
        read(b"<article><body>", Hints("a.xml"))
    bomb = (
        '<!DOCTYPE article [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>'
    )
    document = read(f"{bomb}<article><body><p>before &b;&c; after</p></body></article>".encode(), Hints())
    assert document.text.split() == ["before", "after"]
    with pytest.raises(DamagedFileError):
        read(b"<article>" + b"<sec>" * 10_000 + b"</sec>" * 10_000 + b"</article>", Hints())
