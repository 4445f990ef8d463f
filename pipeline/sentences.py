"""Sentence spans in any script, by rules: fast, exact, and the same on every machine.

A sentence ends at a stop mark followed by white space (Latin, Greek, Cyrillic, Arabic, Devanagari ...),
at an ideographic stop wherever it stands (。！？), at a blank line, and at a line break where the lines
are not wrapped prose (one transcript turn, list item or verse a line). Thai, Lao and Khmer have no
stops: there a space ends a sentence that is long enough.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

Span = tuple[int, int]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CLOSERS = "\"'”’»›)\\]}」』】》〉）］"
_OPENERS = "\"'“‘«‹([{¿¡„‚「『【《〈（*_#—–-"
_MARKS = ".!?…‼⁇⁈⁉؟۔।॥։።፧။།"
_STOP = re.compile(
    # A run of stop marks with closing quotes, note marks ("end.12", "end.[3]"), then white space.
    # Possessive, and only from a run's first mark: 100,000 dots must not take their square.
    rf"(?<![{_MARKS}])(?:[{_MARKS}]++|(?<=[\u0370-\u03ff\u1f00-\u1fff]);)[{_CLOSERS}]*+"
    r"(?:\[[^\]\s]{1,12}\]|(?<=[^\W\d_]{2}[.!?])\d{1,3}|[¹²³⁰-⁹])*(?=\s|$)"
    rf"|[。！？｡]++[{_CLOSERS}]*+"
)
# What follows a closing quote when the sentence goes on ("...。」と言った").
_QUOTATIVE = ("と", "って", "など", "、", "，", "等", "の", "は", "が", "を", "に", "で")
_SPACED_SCRIPT = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff]\s+(?=[\u0e00-\u0eff\u1780-\u17ff])")
_SPACED_SENTENCE_CHARS = 60
_IDEOGRAPHIC = "。！？｡"

# Before a name or a further part of the same thing: never the end of a sentence.
_TITLES = _words(
    "mr mrs ms mx dr prof rev hon fr sr. sra srta st mt ft gen col maj capt lt sgt adm gov sen rep pres supt "
    "messrs mme mmes mlle mgr dott sig vs v viz cf eg ie e.g i.e ca approx incl excl resp ibid op al dept "
    "z.b d.h u.a bzw ca ggf sog vgl hr hrn fam g-n г-н г-жа т.е т.к напр см ст ул им ed eds trans tel"
)
# Before a number: "No. 5", "Fig. 2", "pp. 3-4". Otherwise an ordinary word.
_NUMBERED = _words(
    "no nos fig figs art arts sec secs § eq eqs ref refs ch chap vol p pp para par tab pt ex exh cl reg "
    "app d n nr s abb kap abs bd no° núm cap pág стр гл рис табл п д кв ред r rule stat c"
)
# May end a sentence: they do where a common first word follows.
_EITHER = _words(
    "inc corp ltd co llc lp plc bros assn jr sr esq ph.d m.d b.a m.a d.c u.s u.k u.n e.u u.s.a a.m p.m b.c "
    "a.d jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun est ave blvd rd gmbh "
    "cie s.a n.v a.g usw etc др пр г гг руб тыс млн млрд"
)
_FIRST_WORDS = _words(
    "the a an it he she they we i you this that these those there in on at by for from to with as if when "
    "while although however but and or so then thus no not all each any some his her its our their my your "
    "what who why how where is are was were do does did have has had may must under upon after before since "
    "der die das ein eine er sie es wir ich und aber le la les un une il elle nous on et mais el los las una "
    "yo y pero in il lo e ma o os as um uma он она они это и но в на я мы"
)
_MONTHS = _words("januar februar märz april mai juni juli august september oktober november dezember jänner")
_PARTS = _words("section article item chapter part rule clause schedule exhibit book annex appendix note")
_WORD_BEFORE = re.compile(r"[^\s\"'“”‘’«»()\[\]{}/—–]*$")
_ACRONYM = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_NUMBER = re.compile(r"[ivxlcIVXLC]+|\d[\d.]*")
_WORD_AFTER = re.compile(rf"\s*[{re.escape(_OPENERS)}]*([^\W_]*)")

_ITEM = re.compile(r"\s*(?:[-*•‣▪◦–—·●○■□►]\s|\(?(?:\d{1,3}|[ivxlc]{1,6}|[a-zA-Z])[.)]\s|[|>#])")
_SPEAKER = re.compile(r"\s*[^\W\d_a-z][\w.'’()-]*(?: [\w.'’()-]+){0,3}:\s")
_MIN_WRAP_CHARS, _MAX_WRAP_CHARS = 40, 160


def sentences(text: str, breaks: Iterable[int] | None = None) -> list[Span]:
    """Spans of sentences, in order, without surrounding white space, covering all other characters.

    ``breaks`` are positions where a sentence must end, such as the starts of blocks; left out, they
    are the :func:`line_breaks` of the text.
    """
    forced = sorted(set(line_breaks(text) if breaks is None else breaks))
    cuts = sorted({*forced, *_ends(text, forced)})
    spans = []
    for start, end in pairwise([0, *cuts, len(text)]):
        piece = text[start:end]
        left = len(piece) - len(piece.lstrip())
        if left < len(piece):
            spans.append((start + left, start + len(piece.rstrip())))
    return spans


def line_breaks(text: str) -> list[int]:
    """Positions of the line breaks that end a sentence whatever stands before them.

    Blank lines always do. Other breaks do unless the lines are wrapped: a line is, if the first word
    of the next one would not have fitted into the width that the document's lines keep to.
    """
    lines = text.split("\n")
    inner = sorted(len(a) for a, b in pairwise(lines) if a.strip() and b.strip())
    width = inner[int(len(inner) * 0.95)] if inner else 0
    wrapped = _MIN_WRAP_CHARS <= width <= _MAX_WRAP_CHARS or (width >= 20 and _ideographic(text))
    found, position = [], 0
    for line, following in pairwise(lines):
        position += len(line)
        if not (wrapped and _continues(line, following, width)):
            found.append(position)
        position += 1
    return found


def _ideographic(text: str) -> bool:
    sample = text[:4000]
    return sum(c >= "\u2e80" for c in sample) * 2 > len(sample)


def _continues(line: str, following: str, width: int) -> bool:
    """Whether ``following`` goes on with the sentence of ``line``, as wrapped prose does."""
    words = following.split(maxsplit=1)
    if not words or not line.strip() or _ITEM.match(following) or _SPEAKER.match(following):
        return False
    first = 1 if words[0][0] >= "\u2e80" else len(words[0])
    length = len(line.rstrip())
    if length + 1 + first > width * 0.9:
        return True
    return length > width * 0.5 and words[0][0].islower() and line.rstrip()[-1] not in ".!?:;"


def _ends(text: str, forced: Sequence[int]) -> Iterator[int]:
    """Positions after the stop marks that end a sentence, and in scripts without stops, of spaces."""
    candidates = [(m.start(), m.end()) for m in _STOP.finditer(text)]
    uncased = _is_uncased(text, candidates)
    last = 0
    for stop, end in candidates:
        i = bisect_right(forced, stop)
        start = max(last, forced[i - 1] if i else 0)
        if _is_end(text, start, stop, end, uncased):
            last = end
            yield end
    previous = 0
    for match in _SPACED_SCRIPT.finditer(text):
        if match.end() - previous >= _SPACED_SENTENCE_CHARS:
            previous = match.end()
            yield previous


def _is_uncased(text: str, candidates: list[Span]) -> bool:
    """Whether sentences begin in lower case here, as in chats and automatic transcripts."""
    stops = [end for stop, end in candidates[:2000] if end - stop == 1 and text[stop] == "."]
    followers = [text[end + 1 : end + 2] for end in stops]
    lower = sum(c.islower() for c in followers)
    return lower > max(2, 0.4 * sum(c.isalpha() for c in followers))


def _is_end(text: str, start: int, stop: int, end: int, uncased: bool) -> bool:
    """Whether the stop marks ``text[stop:end]`` end the sentence that began at ``start``."""
    mark = text[stop]
    if mark in _IDEOGRAPHIC:
        return text[end - 1] in _IDEOGRAPHIC or not text.startswith(_QUOTATIVE, end)
    after = _WORD_AFTER.match(text, end)
    word = after.group(1) if after else ""
    if word[:1].islower() and not uncased:
        return False
    if mark != "." or text[stop : stop + 2] == "..":
        return True
    return not _is_abbreviation(text, start, stop, word)


def _is_abbreviation(text: str, start: int, stop: int, following: str) -> bool:
    """Whether the full stop at ``stop`` belongs to the word before it and the sentence goes on."""
    found = _WORD_BEFORE.search(text, max(start, stop - 24), stop)
    word = found.group().lstrip("$€£#*_") if found else ""
    lower, next_lower = word.lower(), following.lower()
    if lower in _TITLES:
        return True
    if _NUMBER.fullmatch(word):
        return _is_numbering(text, start, stop - len(word), next_lower)
    is_code = any(c.isdigit() for c in following) or (following.isupper() and following not in "AI")
    if lower in _NUMBERED and is_code:
        return True
    is_initial = len(word) == 1 and word.isalpha() and word != "I"
    if is_initial or lower in _EITHER or _ACRONYM.fullmatch(word):
        return next_lower not in _FIRST_WORDS
    return False


def _is_numbering(text: str, start: int, word: int, next_lower: str) -> bool:
    """Whether the number at ``word`` numbers what follows: "1. Scope", "Section 2. Term", "3. Mai"."""
    before = text[start:word].split() if word - start < 40 else ["", ""]
    if not before:
        return True
    return (len(before) == 1 and before[0].lower() in _PARTS) or next_lower in _MONTHS
