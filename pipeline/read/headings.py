"""Which lines of running text are headings, and how high they rank.

For text that marks its headings only by wording and layout: plain text, and pages whose headings are
merely bold. Levels: 1 volume, book, part; 2 chapter, article, item; 3 section, scene; unnamed ones below.
"""

from __future__ import annotations

import re

_NUMERAL = (
    r"(?:\d{1,4}[A-Z]?|[IVXLCDM]{1,8}|[ivxlcdm]{1,8}|[A-Z]|(?:(?:THE\s+)?(?:(?:TWENTY|THIRTY|FORTY|FIFTY|SIXTY)[\s-]?)?"
    r"(?:ONE|TWO|THREE|FOUR|FIVE|SIX|SEVEN|EIGHT|NINE|TEN|ELEVEN|TWELVE|THIRTEEN|FOURTEEN|FIFTEEN|SIXTEEN|SEVENTEEN"
    r"|EIGHTEEN|NINETEEN|TWENTY|THIRTY|FORTY|FIFTY|SIXTY|FIRST|SECOND|THIRD|FOURTH|FIFTH|SIXTH|SEVENTH|EIGHTH"
    r"|NINTH|TENTH|LAST)))"
)
_RANKS = (
    (1, "VOLUME|VOL\\.|BOOK|PART|TOME|LIVRE|PARTIE|TEIL|BUCH|BAND|LIBRO|PARTE|ТОМ|КНИГА|ЧАСТЬ"),
    (2, "CHAPTER|CHAP\\.|ARTICLE|ITEM|LETTER|CANTO|STAVE|ACT|TITLE|APPENDIX|ANNEX|SCHEDULE|EXHIBIT"),
    (2, "KAPITEL|ARTIKEL|CHAPITRE|CAP[IÍ]TULO|CAPITOLO|HOOFDSTUK|ROZDZIAŁ|ANHANG|ANEXO|ANNEXE|ГЛАВА|СТАТЬЯ"),
    (3, "SECTION|SCENE|SEC\\.|SZENE|ABSCHNITT|SEZIONE|SECCI[OÓ]N|РАЗДЕЛ"),
)
_NAMED = tuple(
    (level, re.compile(rf"(?:{words})\s+{_NUMERAL}(?![\w'’])", re.IGNORECASE)) for level, words in _RANKS
)
_ORDINALS = r"(?:THE\s+)?(?:FIRST|SECOND|THIRD|FOURTH|FIFTH|SIXTH|SEVENTH|EIGHTH|NINTH|TENTH|LAST)"
_TENS_DE = r"(?:ERST|ZWEIT|DRITT|VIERT|FÜNFT|SECHST|SIEB(?:EN)?T|ACHT|NEUNT|ZEHNT|ELFT|ZWÖLFT|LETZT)E[RS]?"
_COUNTED = tuple(
    (level, re.compile(rf"(?:{_ORDINALS}|{_TENS_DE})\s+(?:{words})(?![\w'’])", re.IGNORECASE))
    for level, words in (
        (1, "VOLUME|BOOK|PART|EPILOGUE|TEIL|BUCH|BAND"),
        (2, "CHAPTER|ACT|CANTO|STAVE|LETTER|KAPITEL|AKT|AUFZUG"),
        (3, "SCENE|SECTION|ABSCHNITT|AUFTRITT|SZENE"),
    )
)
_ALONE = re.compile(
    r"(?:PREFACE|FOREWORD|INTRODUCTION|PROLOGUE|EPILOGUE|CONCLUSIONS?|CONTENTS|TABLE OF CONTENTS|ABSTRACT"
    r"|SUMMARY|EXECUTIVE SUMMARY|REFERENCES|BIBLIOGRAPHY|GLOSSARY|ACKNOWLEDGE?MENTS?|AFTERWORD|DEDICATION"
    r"|INDEX|APPENDIX|NOTES|VORWORT|EINLEITUNG|INHALT|PRÉFACE|AVANT-PROPOS|ПРЕДИСЛОВИЕ|ЭПИЛОГ)[.:]?",
    re.IGNORECASE,
)
_CJK = re.compile(
    r"(?:第\s*[〇零一二三四五六七八九十百千\d０-９]{1,6}\s*([部巻卷編编篇章回節节条條话話]))[^。]{0,40}"
)
_CJK_RANKS = {
    **dict.fromkeys("部巻卷編编篇", 1),
    **dict.fromkeys("章回条條话話", 2),
    **dict.fromkeys("節节", 3),
}
_DECIMAL = re.compile(r"(\d{1,2}(?:\.\d{1,3}){0,4})\.?[ \t]+(?=[^\W\d_])")
_ROMAN = re.compile(r"(?=[IVXLC])(?:X[LC]|L?X{0,3})(?:I[XV]|V?I{0,3})\.?")
_LEADERS = re.compile(r"\.{4,}|(?:\s\.){3,}|…{2,}|(?:\s{2,}|\t|\.)\d{1,4}$")
_MAX_CHARS = 90
_MAX_CAPS_WORDS = 14
UNNAMED_LEVEL = 4
"""The level of a heading that neither its words nor its number rank."""


def rank(line: str, *, alone: bool = True) -> int:
    """The level of a heading from 1, or 0 if the line is none.

    ``alone`` says that blank lines surround it; without them only named divisions count
    ("CHAPTER I", "第一章"), because a short line in capitals may be anything.
    """
    line = line.strip()
    if not line or len(line) > _MAX_CHARS:
        return 0
    named = _named(line)
    if named or not alone:
        return named
    if _ALONE.fullmatch(line):
        return 2
    return _numbered(line) or (UNNAMED_LEVEL if is_shouted(line) else 0)


def is_bare(line: str) -> bool:
    """A division's number without its name ("CHAPTER I.", "IV"), which may follow on the next line."""
    line = line.strip()
    for _, pattern in (*_NAMED, *_COUNTED):
        if (found := pattern.match(line)) and not line[found.end() :].strip(" .:-—–"):
            return True
    return bool(_ROMAN.fullmatch(line))


def is_shouted(line: str) -> bool:
    """A short line in capitals that is no sentence, sum or list."""
    letters = [c for c in line if c.isalpha()]
    if len(letters) < 4 or not line.isupper() or line.endswith((",", ";", "-", '"', "”", "'", "!", "?")):
        return False
    return len(line.split()) <= _MAX_CAPS_WORDS and len(letters) >= 0.6 * len(line.replace(" ", ""))


def _named(line: str) -> int:
    for level, pattern in (*_NAMED, *_COUNTED):
        found = pattern.match(line)
        if found and _titled(line, line[found.end() :]):
            return level
    cjk = _CJK.fullmatch(line)
    return _CJK_RANKS[cjk[1]] if cjk else 0


def _titled(line: str, rest: str) -> bool:
    """Whether what follows the number reads as a title and not as the rest of a sentence or a
    contents line: "Part I of this agreement shall ..." and "CHAPTER II ........ 17" do not."""
    if _LEADERS.search(rest):
        return False
    rest = rest.strip(" \t.:-—–")
    if not rest:
        return True
    return line.isupper() or not (rest[0].islower() or line.endswith((",", ";")))


def _numbered(line: str) -> int:
    """A decimal number ranks by its parts ("2.1 Scope"); a bare Roman numeral is a chapter."""
    if _ROMAN.fullmatch(line):
        return 2
    found = _DECIMAL.match(line)
    if not found or _LEADERS.search(line):
        return 0
    rest = line[found.end() :]
    if not rest[0].isupper() or (rest.rstrip().endswith((".", ",", ";", ":", "?")) and not rest.isupper()):
        return 0
    return found[1].count(".") + 2
