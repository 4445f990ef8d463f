"""Near-duplicates: passages whose words an earlier passage already has.

Containment of word shingles (Broder 1997, "On the resemblance and containment of documents"), not
resemblance: a short passage inside a long one says nothing new either. A passage that names another
number or name, or negates, is no duplicate however alike its words are.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict, defaultdict
from itertools import chain

from pipeline import cues

SHINGLE_WORDS = 4
CONTAINMENT = 0.9

Shingle = int  # hash of its words, in this process

_MOST_TEXTS = 1024  # about 4 kB each


class Distinct:
    """Admits texts one after the other. The work is linear in the words of all texts together."""

    def __init__(self) -> None:
        self._holders: dict[Shingle, list[int]] = defaultdict(list)
        self._texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._claims: dict[int, cues.Claims] = {}

    def twin(self, text: str) -> int | None:
        """Admit a text and return None, or the number (from 0) of the admitted text it repeats."""
        if text in self._numbers:
            return self._numbers[text]
        shingles = _LATELY.of(text)
        enough = CONTAINMENT * len(shingles)
        held = [self._holders[shingle] for shingle in shingles if shingle in self._holders]
        if len(held) >= enough:
            shared = Counter(chain.from_iterable(held))
            alike = [n for n, count in shared.items() if count >= enough]
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


class _Lately:
    """Shingles of the texts seen last, since questions about the same documents find the same passages: as
    numbers and by digest, so that nothing of a text is kept that may be deleted meanwhile. Thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, frozenset[Shingle]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, text: str) -> frozenset[Shingle]:
        key = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        made = _shingles(text)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _MOST_TEXTS:
                self._kept.popitem(last=False)
        return made


def _shingles(text: str) -> frozenset[Shingle]:
    words = cues.words(text)
    if len(words) < SHINGLE_WORDS:
        return frozenset([hash(tuple(words))])
    return frozenset(map(hash, zip(*(words[i:] for i in range(SHINGLE_WORDS)), strict=False)))


_LATELY = _Lately()
