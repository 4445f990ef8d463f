"""Numbers in running text, made comparable: digits of any script, separators, scales, English words."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

_DIGITS = re.compile(r"(?<![\w.,])[+-]?(\d+(?:[.,\u00a0\u202f]\d+)*)((?:st|nd|rd|th)\b)?", re.IGNORECASE)
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SHORT_SCALES = {"k": 1000, "mn": 10**6, "bn": 10**9}
_SCALE_AFTER = re.compile(rf"[\s-]*({'|'.join([*_SCALES, *_SHORT_SCALES])})s?\b", re.IGNORECASE)
_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_VALUES = {word: value for value, word in enumerate((*_UNITS, *_TEENS), 1)}
_VALUES |= {word: 10 * value for value, word in enumerate(_TENS, 2)} | {"zero": 0, "a": 1, "an": 1}
# "one" and "a" are numbers only before a scale; elsewhere they are a pronoun and an article.
_COUNTED = "|".join(word for word in _VALUES if word not in ("one", "a", "an"))
_WORD = re.compile(
    rf"\b(?:({'|'.join(_TENS)})[\s-]({'|'.join(_UNITS[:9])})|(one|an?)(?=\s+(?:{'|'.join(_SCALES)})\b)"
    rf"|({_COUNTED})|({'|'.join(_ORDINALS)}))\b",
    re.IGNORECASE,
)
AMOUNT_WORDS = frozenset({*_VALUES, *_SCALES, "half", "dozen", "several"} - {"one", "a", "an"})


def numbers(text: str) -> list[str]:
    """Canonical numbers: "1,234.50", "1234.5" and "5 million", "5,000,000", "five million" agree.

    Each as often as it stands there. An ordinal ("third", "3rd") is another thing than its number and
    reads "3th"; what has several points ("1.2.3") is kept as written.
    """
    text = unicodedata.normalize("NFKC", text)
    found = [_written(m, text) for m in _DIGITS.finditer(text)]
    for m in _WORD.finditer(text):
        tens, unit, single, counted, ordinal = (group.lower() if group else "" for group in m.groups())
        if ordinal:
            found.append(f"{_ORDINALS.index(ordinal) + 1}th")
        else:
            value = _VALUES[tens or single or counted] + _VALUES.get(unit, 0)
            found.append(_scaled(Decimal(value), text, m.end()))
    return found


def _written(found: re.Match[str], text: str) -> str:
    plain = "".join(str(int(c)) if c.isdigit() else c for c in found.group(1) if c not in "\u00a0\u202f")
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", plain):
        plain = plain.replace(",", "")
    elif re.fullmatch(r"\d{1,3}(\.\d{3}){2,}(,\d+)?", plain):
        plain = plain.replace(".", "").replace(",", ".")
    elif plain.count(",") == 1 and "." not in plain:
        plain = plain.replace(",", ".")
    if not re.fullmatch(r"\d+(\.\d+)?", plain):
        return plain
    if found.group(2):
        return f"{plain.lstrip('0')}th"
    return _scaled(Decimal(plain), text, found.end())


def _scaled(value: Decimal, text: str, end: int) -> str:
    scale = _SCALE_AFTER.match(text, end)
    if scale:
        word = scale.group(1).lower()
        value *= _SCALES.get(word) or _SHORT_SCALES[word]
    return f"{value.normalize():f}"
