"""Near-duplicates: passages whose words an earlier passage already has.

Containment of word shingles (Broder 1997, "On the resemblance and containment of documents"), not
resemblance: a short passage inside a long one says nothing new either. A passage that names another
number or name, or negates, is no duplicate however alike its words are.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from pipeline import cues

SHINGLE_WORDS = 4
CONTAINMENT = 0.9


class Distinct:
    """Admits texts one after the other. The work is linear in the words of all texts together."""

    def __init__(self) -> None:
        self._holders: dict[str, list[int]] = defaultdict(list)
        self._texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._claims: dict[int, cues.Claims] = {}

    def twin(self, text: str) -> int | None:
        """Admit a text and return None, or the number (from 0) of the admitted text it repeats."""
        if text in self._numbers:
            return self._numbers[text]
        shingles = _shingles(text)
        shared = Counter(n for shingle in shingles for n in self._holders.get(shingle, ()))
        alike = [n for n, count in shared.items() if count >= CONTAINMENT * len(shingles)]
        if alike:
            claims = cues.claims(text)
            for n in sorted(alike):
                if n not in self._claims:
                    self._claims[n] = cues.claims(self._texts[n])
                if claims.within(self._claims[n]):
                    return n
        for shingle in shingles:
            self._holders[shingle].append(len(self._texts))
        self._numbers[text] = len(self._texts)
        self._texts.append(text)
        return None


def _shingles(text: str) -> frozenset[str]:
    words = cues.words(text)
    return frozenset(
        " ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))
    )
