"""Text to index terms: what counts as the same word for lexical search.

Words are case-folded, stemmed and stripped of accents. Numbers lose their thousands separators and
keep their currency or per cent sign in a second term ("$45,000" is ``45000`` and ``$45000``).
Identifiers with digits are kept whole and in parts ("10-K" is ``10-k``, ``10`` and ``k``). Scripts
written without spaces give overlapping pairs of characters, and each ideograph by itself.
"""

from __future__ import annotations

import difflib
import re
import unicodedata

import regex  # type: ignore[import-untyped]
import Stemmer

from pipeline.errors import ConfigurationError
from pipeline.languages import SCRIPTS

VERSION = 1  # grows when the same text would give other terms: indexes built before must be rebuilt

_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc"
_WORD = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{_SPACELESS}]]"
_TOKEN = regex.compile(
    rf"\p{{Sc}}?{_WORD}+(?:['’._,:/@&\-–\u00ad\u2010\u2011]{_WORD}+)*(?:\([a-z0-9]{{1,4}}\))*%?|[{_SPACELESS}]+",
    regex.V1,
)
# The same pattern for ASCII text, where the standard library is three times as fast.
_ASCII_TOKEN = re.compile(r"\$?\w+(?:['._,:/@&\-]\w+)*(?:\([a-z0-9]{1,4}\))*%?", re.ASCII)
_RUN = regex.compile(rf"[{_SPACELESS}]+", regex.V1)
_HAN = regex.compile(r"\p{Han}", regex.V1)
_NUMBER = regex.compile(r"(\p{Sc}?)((?:\d{1,3}(?:,\d{3})+|\d+)(?:[.,]\d+)?)(%?)", regex.V1)
_ACRONYM = regex.compile(r"(?:\p{L}\.)+\p{L}", regex.V1)
_IDENTIFIER = regex.compile(r"[\p{Nd}@_]", regex.V1)
_PARTS = regex.compile(r"[^\p{L}\p{M}\p{N}.,']+|[.,'](?!\d)|(?<!\d)[.,]|(?<!\p{L})'", regex.V1)
_INSIDE = regex.compile(r"[^\p{L}\p{M}\p{N}']+", regex.V1)
_ELIDING = frozenset({"french", "italian", "catalan"})
_MAX_STEMMED_CHARS = 64


def tokens(text: str) -> list[str]:
    """Words, numbers, identifiers and runs of spaceless scripts, as written and in order."""
    pattern = _ASCII_TOKEN if text.isascii() else _TOKEN
    return pattern.findall(text)


def spaceless(token: str) -> bool:
    """Whether a token is a run of a script written without spaces."""
    return _RUN.fullmatch(token) is not None


class Normaliser:
    """Turns a token into its terms. Not thread-safe: the stemmers are not.

    ``language`` stems the words in its own letters; with ``scripts``, words of other scripts are stemmed in
    the language that the script is most used for.
    """

    def __init__(self, language: str, *, stems: bool, scripts: bool = False) -> None:
        """Raises ConfigurationError for a language without a Snowball stemmer."""
        known = Stemmer.algorithms()
        if stems and language not in known:
            close = difflib.get_close_matches(language, known, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise ConfigurationError(
                f"There is no stemmer for the language {language!r}.",
                remedy=f"{hint}Languages: {', '.join(known)}; or switch stems off.",
            )
        self._stem = Stemmer.Stemmer(language, 0).stemWord if stems else str
        self._scripts = [
            (regex.compile(rf"{script}+", regex.V1), Stemmer.Stemmer(by_default, 0).stemWord)
            for script, (by_default, *others) in SCRIPTS.items()
            if stems and scripts and language not in (by_default, *others)
        ]
        self._elides = language in _ELIDING

    def terms(self, token: str) -> list[str]:
        """The terms of one token. For a word there is one; a bigram uses words with one term only."""
        if _RUN.fullmatch(token):
            return _character_pairs(unicodedata.normalize("NFKC", token))
        text = "".join(
            c for c in unicodedata.normalize("NFKC", token.casefold()) if unicodedata.category(c) != "Cf"
        ).replace("’", "'")
        number = _NUMBER.fullmatch(text)
        if number:
            return _number(*number.groups())
        if _ACRONYM.fullmatch(text):
            return [text.replace(".", "")]
        if _IDENTIFIER.search(text):
            return self._identifier(text)
        return [
            self._word(part) for part in _INSIDE.split(text) for part in self._elided(part) if part.strip("'")
        ]

    def _identifier(self, text: str) -> list[str]:
        parts = [part for part in _PARTS.split(text) if part]
        if parts == [text]:
            return [text]
        found = [text]
        for part in parts:
            number = _NUMBER.fullmatch(part)
            found += _number(*number.groups()) if number else [self._word(part)]
        return found

    def _elided(self, word: str) -> list[str]:
        return word.split("'") if self._elides else [word]

    def _word(self, word: str) -> str:
        word = word.strip("'")
        if len(word) > _MAX_STEMMED_CHARS:
            return _fold(word)
        if not word.isascii():
            for script, stem in self._scripts:
                if script.match(word):
                    return _fold(stem(word))
        return _fold(self._stem(word))


def _number(sign: str, digits: str, percent: str) -> list[str]:
    plain = digits
    if regex.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", digits):
        plain = digits.replace(",", "")
    return [plain, f"{sign}{plain}{percent}"] if sign or percent else [plain]


def _character_pairs(run: str) -> list[str]:
    pairs = [run[i : i + 2] for i in range(len(run) - 1)]
    return [c for c in run if len(run) == 1 or _HAN.match(c)] + pairs


def _fold(word: str) -> str:
    """Strip accents from Latin and Greek letters; elsewhere a mark can be another letter."""
    if word.isascii():
        return word
    kept: list[str] = []
    for char in unicodedata.normalize("NFD", word):
        base = kept[-1] if kept else ""
        if not ("\u0300" <= char <= "\u036f" and (base < "\u0250" or "\u0370" <= base <= "\u03ff")):
            kept.append(char)
    return unicodedata.normalize("NFC", "".join(kept)).replace("ё", "е")
