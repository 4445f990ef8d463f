"""BM25 as sparse vectors (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework", 3.15).

A document's vector holds, for each term, ``tf (k1 + 1) / (tf + k1 (1 - b + b length / avg_len))``;
a query's holds how often it says the term. Their dot product with the inverse document frequency that
the index knows is BM25. Terms are known by a 32-bit hash, so there is no vocabulary to keep.

A passage is cut out of a text that goes on before and after it, so its words are weighed twice: in itself,
and in the window that it forms with its two neighbours and the document's title. What is stored is the
weighted mean of both, one vector; a search costs the same. On development sets this found evidence within a
budget better than either alone (see docs/decisions/words_in_context.md).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import titles, words
from pipeline.errors import ConfigurationError
from pipeline.languages import FALLBACK, UNSTEMMED, latin_language
from pipeline.types import SparseVector

AUTO = "auto"
_VOCABULARY_TERMS = 500_000  # about 100 MB; then it starts anew


@dataclass(frozen=True, slots=True)
class LexicalConfig:
    """How text is analysed and weighted."""

    k1: float = 0.9
    """BM25: saturation of term frequency, at least 0."""
    b: float = 0.75
    """BM25: normalisation by length, 0 to 1."""
    language: str = AUTO
    """Snowball stemmer; `auto` tells the language of each text and question by script and function words."""
    stems: bool = True
    """Whether words are cut to their stems."""
    bigram_weight: float = 0.3
    """Weight of pairs of adjacent words in queries; 0 leaves pairs out of the index."""
    stop_words: tuple[str, ...] = ()
    """Left out; compared after case folding and before stemming."""
    context_weight: float = 0.5
    """Share of neighbours and title in a passage's words, 0 to 1; 0 is plain BM25 of passages."""
    titles: bool = True
    """Whether documents are found by the words of titles that their texts do not begin with."""

    def __post_init__(self) -> None:
        """Raise ConfigurationError for a value out of range."""
        if not (0 <= self.k1 <= 100 and 0 <= self.b <= 1 and 0 <= self.bigram_weight <= 100):
            raise ConfigurationError(
                f"k1 {self.k1}, b {self.b} or bigram_weight {self.bigram_weight} is out of range.",
                remedy="k1 and bigram_weight are 0 to 100, b is 0 to 1.",
            )
        if not 0 <= self.context_weight <= 1:
            raise ConfigurationError(
                f"context_weight is {self.context_weight}.", remedy="Set it between 0 and 1."
            )


class Analyser:
    """Text to lexical vectors. Thread-safe; words seen before cost one dictionary look-up."""

    def __init__(self, config: LexicalConfig | None = None) -> None:
        """Raises ConfigurationError for an unknown language."""
        self.config = config or LexicalConfig()
        self._language = FALLBACK if self.config.language == AUTO else self.config.language
        self._vocabularies = {self._language: _Vocabulary(self.config, self._language)}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Analyser:
        """The analyser that :attr:`parameters` came from. Other keys (``avg_len``) are ignored.

        Raises ConfigurationError if that analyser no longer exists in this version.
        """
        if parameters.get("analyser_version") != words.VERSION:
            raise ConfigurationError(
                f"The index was analysed by version {parameters.get('analyser_version')!r}; "
                f"this is version {words.VERSION}.",
                remedy="Ingest its documents again.",
            )
        given = with_later_parameters(parameters)
        known = {f.name: given[f.name] for f in fields(LexicalConfig)}
        return cls(LexicalConfig(**{**known, "stop_words": tuple(known["stop_words"])}))

    @property
    def parameters(self) -> dict[str, Any]:
        """All that queries must share with the index, as JSON values."""
        return {
            **asdict(self.config),
            "stop_words": list(self.config.stop_words),
            "analyser_version": words.VERSION,
        }

    def terms(self, text: str) -> list[str]:
        """The terms of a text: words in order, then pairs of adjacent words joined by a space.

        With `auto` they are those of English and of the scripts of other languages, whatever the text, so
        that any two texts can be compared.
        """
        vocabulary = self._vocabulary(self._language)
        rows = vocabulary.rows(text)
        found = [vocabulary.spelled[row] for row in rows]
        pairs = [
            f"{a[0]} {b[0]}"
            for a, b in pairwise(found)
            if self.config.bigram_weight and len(a) == len(b) == 1
        ]
        return [term for terms in found for term in terms] + pairs

    def length(self, text: str) -> int:
        """Words in a text, pairs not counted: what ``avg_len`` is the average of."""
        return len(self._hashes(text, self._language)[0])

    def document_vector(self, text: str, avg_len: float) -> SparseVector:
        """BM25 weights without the inverse document frequency; empty for a text without words.

        ``avg_len`` is the typical :meth:`length` of a text of this index, above 0.
        """
        return self._weighted([self._hashes(text, self.language_of(text))], avg_len)

    def language_of(self, text: str) -> str:
        """The stemmer for a text: that of the settings, or what its function words tell."""
        return self._language if self.config.language != AUTO else latin_language(text) or self._language

    def whole_vector(self, title: str, text: str, avg_len: float) -> SparseVector:
        """As :meth:`document_vector`, with the title where the text does not begin with it."""
        language = self.language_of(text)
        parts = [self._hashes(part, language) for part in (self._title(title, text), text)]
        return self._weighted(parts, avg_len)

    def passage_vectors(
        self, texts: Sequence[str], avg_len: float, title: str = "", text: str = ""
    ) -> tuple[SparseVector, ...]:
        """Vectors of a document's passages in order, each in itself and with what stands around it.

        ``title`` and ``text`` are those of the document; ``avg_len`` is the typical length of a passage.
        """
        language = self.language_of(text)
        hashed = [self._hashes(part, language) for part in texts]
        share = self.config.context_weight
        if not share:
            return tuple(self._weighted([part], avg_len) for part in hashed)
        heading = self._hashes(self._title(title, text), language)
        vectors = []
        for i, part in enumerate(hashed):
            around = hashed[max(0, i - 1) : i + 2]
            own = self._weighted([part], avg_len)
            wide = self._weighted([heading, *around], avg_len * len(around) + len(heading[0]))
            values = np.float32(share) * wide.values
            values[np.searchsorted(wide.indices, own.indices)] += np.float32(1 - share) * own.values
            vectors.append(SparseVector(wide.indices, values))
        return tuple(vectors)

    def query_vector(self, text: str) -> SparseVector:
        """How often the query says each term; pairs count ``bigram_weight`` each."""
        language = self.language_of(text)
        unigrams, bigrams = self._hashes(text, language)
        weights = np.concatenate([np.ones(len(unigrams)), np.full(len(bigrams), self.config.bigram_weight)])
        indices, inverse = np.unique(np.concatenate([unigrams, bigrams]), return_inverse=True)
        return SparseVector(indices, np.bincount(inverse, weights, len(indices)).astype(np.float32))

    def _title(self, title: str, text: str) -> str:
        return titles.untold(title, text) if self.config.titles else ""

    def _weighted(
        self, parts: Sequence[tuple[NDArray[np.uint32], NDArray[np.uint32]]], avg_len: float
    ) -> SparseVector:
        """BM25 weights of parts taken together."""
        length = sum(len(unigrams) for unigrams, _ in parts)
        hashes = np.concatenate([hashes for part in parts for hashes in part])
        indices, counts = np.unique(hashes, return_counts=True)
        k1, b = self.config.k1, self.config.b
        saturation = k1 * (1 - b + b * length / avg_len)
        return SparseVector(indices, (counts * (k1 + 1) / (counts + saturation)).astype(np.float32))

    def _hashes(self, text: str, language: str) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        return self._vocabulary(language).hashes(text, pairs=self.config.bigram_weight > 0)

    def _vocabulary(self, language: str) -> _Vocabulary:
        known = self._vocabularies.get(language)
        if known is None or len(known.spelled) > _VOCABULARY_TERMS:
            known = self._vocabularies[language] = _Vocabulary(self.config, language)
        return known


def with_later_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Stored parameters with those that came later, at the values that do what was done before."""
    return {"context_weight": 0.0, "titles": False, **parameters}


class _Vocabulary(dict[str, int]):
    """Tokens seen so far. A token's row gives its terms, and their hashes in a flat array."""

    def __init__(self, config: LexicalConfig, language: str) -> None:
        super().__init__()
        stems = config.stems and language not in UNSTEMMED
        self._normaliser = words.Normaliser(language, stems=stems, scripts=config.language == AUTO)
        self._stop_words = frozenset(word.casefold() for word in config.stop_words)
        self._lock = threading.Lock()
        self.spelled: list[tuple[str, ...]] = []
        self._hashed: list[tuple[int, ...]] = []

    def __missing__(self, token: str) -> int:
        with self._lock:
            if token not in self:
                terms = () if token.casefold() in self._stop_words else tuple(self._normaliser.terms(token))
                self.spelled.append(terms)
                self._hashed.append(tuple(term_hash(term) for term in terms))
                self[token] = len(self.spelled) - 1
        return self[token]

    def rows(self, text: str) -> list[int]:
        """One row a token, those without a term left out."""
        found = map(self.__getitem__, words.tokens(text))
        return [row for row in found if self.spelled[row]]

    def hashes(self, text: str, *, pairs: bool) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Hashes of the terms of a text, and of its pairs of adjacent words."""
        found = [self._hashed[self[token]] for token in words.tokens(text)]
        found = [hashes for hashes in found if hashes]
        flat = np.array([h for hashes in found for h in hashes], np.uint32)
        if not pairs:
            return flat, np.empty(0, np.uint32)
        first = np.array([hashes[0] for hashes in found], np.uint32)
        single = np.array([len(hashes) == 1 for hashes in found], bool)
        return flat, pair_hash(first[:-1], first[1:])[single[:-1] & single[1:]]


def term_hash(term: str) -> int:
    """32 bits of BLAKE2b of the term's UTF-8, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "replace"), digest_size=4).digest(), "little")


def pair_hash(first: NDArray[np.uint32], second: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Hashes of pairs from the hashes of their words, by multiply-shift (Dietzfelbinger 1996)."""
    a = first.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    b = second.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed: NDArray[np.uint64] = (a ^ (b >> np.uint64(29)) ^ b) * np.uint64(0xD6E8FEB86659FD93)
    return (mixed >> np.uint64(32)).astype(np.uint32)
