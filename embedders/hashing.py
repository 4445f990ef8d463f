"""A deterministic embedder without a model: hashed words and character trigrams, randomly projected.

It ranks texts by shared vocabulary (Weinberger et al. 2009, "Feature hashing for large scale multitask
learning"; signs after Achlioptas 2003), which is enough to test everything that surrounds an embedder.
Equal texts get equal vectors on every machine, and different texts different ones.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import EmbeddingError
from pipeline.types import ChunkedDocument, DocumentEmbeddings, Embeddings, Encoding, Fingerprint

# A token is one ideograph, kana or hangul syllable, a run of other word characters, or one mark.
_IDEOGRAPHS = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}]+|[^\w\s]")
_GOLDEN = 0x9E3779B97F4A7C15


class Config(BaseModel):
    """Width, the only choice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(default=256, ge=64, le=4096, multiple_of=64)
    """Width of the vectors, a multiple of 64."""


TINY = Config(dim=128)


def build(config: Config) -> HashingEmbedder:
    """The embedder; nothing is loaded."""
    return HashingEmbedder(config)


class HashingEmbedder:
    """Implements :class:`pipeline.seams.Embedder`; every chunk is embedded alone."""

    def __init__(self, config: Config) -> None:
        self._dim = config.dim

    @property
    def fingerprint(self) -> Fingerprint:
        """Never changes for a given width."""
        return Fingerprint("hashing", "1", self._dim, "sum", 0)

    def encode(self, text: str) -> Encoding:
        """Words, ideographs and marks; an id is a 31-bit hash of the case-folded token."""
        spans = [match.span() for match in _TOKEN.finditer(text)]
        ids = [zlib.crc32(text[a:b].casefold().encode("utf-8", "replace")) & 0x7FFFFFFF for a, b in spans]
        return Encoding(np.array(ids, np.int32), np.array(spans, np.int32).reshape(-1, 2))

    def embed_queries(self, queries: Sequence[str]) -> Embeddings:
        """One vector a query. Raises EmbeddingError for an empty one."""
        for i, query in enumerate(queries):
            if not query.strip():
                raise EmbeddingError(f"Query {i} is empty: {query!r}.", remedy="Ask something.")
        return Embeddings(self._embed(queries), self.fingerprint)

    def embed_documents(
        self, documents: Sequence[ChunkedDocument], progress: Callable[[int], None] | None = None
    ) -> list[DocumentEmbeddings]:
        """Vectors of every passage and unit, from their text alone."""
        results = []
        for document in documents:
            passages = self._embed([chunk.text for chunk in document.passages])
            units = self._embed([chunk.text for chunk in document.units])
            results.append(DocumentEmbeddings(passages, units, self.fingerprint, "each chunk alone"))
            if progress:
                progress(len(document.encoding))
        return results

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self._dim), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self._project(_features(text))
        return vectors

    def _project(self, features: dict[str, float]) -> NDArray[np.float32]:
        """Sum of one pseudo-random sign vector a feature, times its weight; unit length."""
        keys = np.array([zlib.crc32(name.encode("utf-8", "replace")) for name in features], np.uint64)
        weights = np.fromiter(features.values(), np.float32, len(features))
        lanes = np.arange(1, self._dim // 64 + 1, dtype=np.uint64)
        bits = _mix(keys[:, None] * np.uint64(_GOLDEN) + lanes).astype("<u8").view(np.uint8)
        signs = np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1
        vector: NDArray[np.float32] = weights @ signs
        length = float(np.linalg.norm(vector))
        if length == 0:  # weights that cancelled exactly, or no feature at all
            vector[0] = length = 1.0
        return vector / np.float32(length)


def _features(text: str) -> dict[str, float]:
    """Words weighted by the root of their count, short ones less, and trigrams of longer words."""
    features: dict[str, float] = {text.strip()[:64]: 0.05}  # tells texts of equal words apart
    for match in _TOKEN.finditer(text.casefold()):
        word = match.group()
        weight = 1.0 if len(word) > 3 or ord(word[0]) > 0x2E7F else 0.2
        features["w" + word] = features.get("w" + word, 0.0) + weight
        for i in range(len(word) - 2 if len(word) > 3 else 0):
            gram = "g" + word[i : i + 3]
            features[gram] = features.get(gram, 0.0) + 0.1
    return {name: count**0.5 * min(count, 1.0) ** 0.5 for name, count in features.items()}


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014): every input bit moves every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
