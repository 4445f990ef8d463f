"""Late chunking (Günther et al. 2024, arXiv:2409.04701), blended with each chunk's own vector.

The document is encoded in overlapping windows as long as the model allows; a token keeps the vector of
the window in which it is farther from the edge; a chunk is the mean of its tokens. So a chunk's vector
knows what stands around it. Alone that blurs exact facts, so it is mixed with the vector of the chunk
read alone: ``w * late + (1 - w) * own``, both of unit length, then unit length again. Units are read
alone in a second pass; a passage's own vector is the mean of its units' weighted by their tokens, so
that passages cost no third pass. A pass that no weight asks for is not made.

Where a text does not say its title, the title, read alone, has a share in the vectors of its passages and
units: ``(1 - t) * chunk + t * title``. A title of fewer than two words has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from embedders import sentence_transformer
from embedders.sentence_transformer import (
    SentenceTransformerEmbedder,
    describe,
    find,
    own_ids,
    refuse_without_tokens,
)
from pipeline import titles
from pipeline.encoder.meter import Meter
from pipeline.encoder.text_encoder import Vectors
from pipeline.encoder.windowing import Window, Windowing
from pipeline.errors import ConfigurationError
from pipeline.types import ChunkedDocument, ChunkKind, DocumentEmbeddings, Embeddings, Encoding, Fingerprint


class Config(sentence_transformer.Config):
    """The model's options, and those of windows and weights."""

    overlap_tokens: int = Field(default=32, ge=0)
    """Tokens that neighbouring windows share at least."""
    passage_late: float = Field(default=0.5, ge=0, le=1)
    """Weight of a passage's late vector, 0 to 1; 0 is the passage read alone."""
    unit_late: float = Field(default=0.5, ge=0, le=1)
    """Weight of a unit's late vector, 0 to 1; 0 is the unit read alone."""
    passage_title: float = Field(default=0.5, ge=0, lt=1)
    """Weight of the title in a passage's vector where the text does not begin with it, from 0 to below 1."""
    unit_title: float = Field(default=0.25, ge=0, lt=1)
    """The same for a unit."""
    late_temperature: float = Field(default=1.0, ge=0.25, le=4)
    """Divides the logits of attention where windows are read: below 1 it is sharper."""
    allow_pooling_mismatch: bool = False
    """Take a model that was not trained to be mean-pooled."""


TINY = Config(dtype="float32", threads=1)


def build(config: Config) -> LateChunkingEmbedder:
    """Find the model and read what it declares; weights are loaded when first used.

    Raises ConfigurationError for a model that is not mean-pooled.
    """
    inner = SentenceTransformerEmbedder(config, find(config))
    return LateChunkingEmbedder(config, inner)


class LateChunkingEmbedder:
    """Implements :class:`pipeline.seams.Embedder`."""

    def __init__(self, config: Config, inner: SentenceTransformerEmbedder) -> None:
        self._config, self._inner, self._encoder = config, inner, inner.encoder
        self._late_of: dict[ChunkKind, float] = {"passage": config.passage_late, "unit": config.unit_late}
        self._title_of: dict[ChunkKind, float] = {"passage": config.passage_title, "unit": config.unit_title}
        declared = inner.fingerprint.pooling
        late = max(config.passage_late, config.unit_late) > 0
        if late and declared != "mean" and not config.allow_pooling_mismatch:
            raise ConfigurationError(
                f"Late chunking averages token vectors, but the model {config.model!r} pools by "
                f"{declared!r}, so its token vectors were not trained to be averaged.",
                remedy="Use the embedder sentence_transformer with it, or set allow_pooling_mismatch.",
            )
        if 2 * config.overlap_tokens >= inner.encoder.window_tokens:
            raise ConfigurationError(
                f"overlap_tokens={config.overlap_tokens} is not less than half of the window of "
                f"{inner.encoder.window_tokens} tokens.",
                remedy="Set it to about a tenth of the window.",
            )
        options = {
            "overlap_tokens": config.overlap_tokens,
            "passage_late": config.passage_late,
            "unit_late": config.unit_late,
            **{f"{kind}_title": weight for kind, weight in self._title_of.items() if weight},
            **({} if config.late_temperature == 1 else {"late_temperature": config.late_temperature}),
        }
        fingerprint = inner.fingerprint
        self._fingerprint = Fingerprint(
            fingerprint.model,
            fingerprint.revision,
            fingerprint.dim,
            declared,
            fingerprint.window_tokens,
            fingerprint.positions,
            tuple(sorted((*fingerprint.options, *(f"{key}={value}" for key, value in options.items())))),
        )

    @property
    def fingerprint(self) -> Fingerprint:
        """The model's, with overlap and weights."""
        return self._fingerprint

    @property
    def warning(self) -> str:
        """What is known against the position method at this window; nothing if nothing is."""
        return self._inner.warning

    def encode(self, text: str) -> Encoding:
        """Tokenise a whole text once; weights are not loaded for it."""
        return self._inner.encode(text)

    def embed_queries(self, queries: Sequence[str]) -> Embeddings:
        """One vector a query, as the model makes it."""
        return Embeddings(self._inner.embed_queries(queries).vectors, self._fingerprint)

    def embed_documents(
        self, documents: Sequence[ChunkedDocument], progress: Callable[[int], None] | None = None
    ) -> list[DocumentEmbeddings]:
        """Vectors of every passage and unit.

        ``progress`` is told how many more document tokens are finished. Raises EmbeddingError naming
        the chunk that cannot be represented.
        """
        refuse_without_tokens(documents)
        needs_late, needs_own = max(self._late_of.values()) > 0, min(self._late_of.values()) < 1
        tokens = sum(len(document.encoding) for document in documents)
        meter = Meter(tokens, tokens * (needs_late + needs_own), progress)
        plans = [self._windowing.plan(len(d.encoding)) if needs_late else [] for d in documents]
        late = self._late(documents, plans, meter) if needs_late else []
        own = self._own(documents, meter) if needs_own else []
        headings = self._titles(documents)
        results = []
        for i, document in enumerate(documents):
            vectors = {}
            for kind, weight in self._late_of.items():
                parts = [(w, means[i][kind]) for w, means in ((weight, late), (1 - weight, own)) if w > 0]
                vectors[kind] = self._mix(parts, document, kind)
                title = self._title_of[kind]
                if title and i in headings:
                    vectors[kind] = _weighted([(1 - title, vectors[kind]), (title, headings[i])])
            text = self._windowing.describe(plans[i])
            results.append(DocumentEmbeddings(vectors["passage"], vectors["unit"], self._fingerprint, text))
        meter.close()
        return results

    def windows(self, tokens: int) -> list[Window]:
        """Windows of equal length over a document, sharing at least ``overlap_tokens`` each."""
        return self._windowing.plan(tokens)

    @cached_property
    def _windowing(self) -> Windowing:
        prompt = self._encoder.tokenizer.prompt_ids(self._inner.document_prompt)
        return Windowing(
            self._encoder.content_tokens(len(prompt)),
            self._config.overlap_tokens,
            self._fingerprint.positions,
        )

    def _late(
        self, documents: Sequence[ChunkedDocument], plans: Sequence[Sequence[Window]], meter: Meter
    ) -> list[dict[ChunkKind, Vectors]]:
        """Means of the token vectors of every chunk, added up as the windows come by."""
        sums = [_UnitSums(document, self._encoder.width) for document in documents]
        places = [(i, window) for i, plan in enumerate(plans) for window in plan]
        sequences = [documents[i].encoding.ids[w.start : w.stop] for i, w in places]
        prompt = self._encoder.tokenizer.prompt_ids(self._inner.document_prompt)
        for batch in self._encoder.token_vectors(sequences, prompt, self._config.late_temperature):
            for at, vectors in batch:
                i, window = places[at]
                kept = vectors[window.keep_start - window.start : window.keep_stop - window.start]
                sums[i].add(window.keep_start, kept)
            meter.add(sum(places[at][1].keep_stop - places[at][1].keep_start for at, _ in batch))
        return [each.means() for each in sums]

    def _own(self, documents: Sequence[ChunkedDocument], meter: Meter) -> list[dict[ChunkKind, Vectors]]:
        """Every unit read alone; of passages, the mean of their units weighted by tokens."""
        units = [(document, unit) for document in documents for unit in document.units]
        pooled = self._encoder.pooled(
            [own_ids(document, unit) for document, unit in units],
            self._encoder.tokenizer.prompt_ids(self._inner.document_prompt),
            meter.add,
        )
        results: list[dict[ChunkKind, Vectors]] = []
        start = 0
        for document in documents:
            own = pooled[start : start + len(document.units)]
            start += len(document.units)
            weights = [max(unit.token_end - unit.token_start, 1) for unit in document.units]
            parents = [unit.parent for unit in document.units]
            results.append({"unit": own, "passage": _by_parent(own, np.array(weights), parents)})
        return results

    def _titles(self, documents: Sequence[ChunkedDocument]) -> dict[int, Vectors]:
        """Unit vectors ``(D,)`` of titles that have a share and are not in their texts, by document."""
        if not any(self._title_of.values()):
            return {}
        told = {i: titles.telling(d.document.title, d.document.text) for i, d in enumerate(documents)}
        ids = {i: self.encode(title).ids for i, title in told.items() if title}
        places = [i for i, each in ids.items() if len(each)]
        prompt = self._encoder.tokenizer.prompt_ids(self._inner.document_prompt)
        pooled = self._encoder.pooled([ids[i] for i in places], prompt)
        vectors = self._encoder.finish(pooled, lambda n: f"the title {told[places[n]]!r}")
        return dict(zip(places, vectors, strict=True))

    def _mix(
        self, parts: Sequence[tuple[float, Vectors]], document: ChunkedDocument, kind: ChunkKind
    ) -> Vectors:
        """Unit vectors of each part, weighted, and unit vectors again."""
        chunks = document.passages if kind == "passage" else document.units
        finished = [(w, self._encoder.finish(v, lambda i: describe(document, chunks[i]))) for w, v in parts]
        return finished[0][1] if len(finished) == 1 else _weighted(finished)


class _UnitSums:
    """Sums of token vectors by unit, filled in any order of windows.

    Units follow one another in the tokens. One that owns no tokens of its own (a part of a single
    enormous token, or only characters unknown to the tokenizer) takes the mean of the unit before it.
    """

    def __init__(self, document: ChunkedDocument, width: int) -> None:
        firsts, counts, self._owners = [], [], []
        reached = 0
        for unit in document.units:
            if unit.token_end > max(unit.token_start, reached):
                firsts.append(reached)
                counts.append(unit.token_end - reached)
                reached = unit.token_end
            self._owners.append(max(len(firsts) - 1, 0))
        self._firsts, self._counts = np.array(firsts), np.array(counts, np.float32)
        self._parents = [unit.parent for unit in document.units]
        self._sums = np.zeros((len(firsts), width), np.float32)

    def add(self, start: int, vectors: Vectors) -> None:
        """``vectors`` ``(n, D)`` of the tokens from ``start`` on."""
        first = int(np.searchsorted(self._firsts, start, "right")) - 1
        last = int(np.searchsorted(self._firsts, start + len(vectors), "left"))
        begins = np.maximum(self._firsts[first:last], start) - start
        self._sums[first:last] += np.add.reduceat(vectors, begins, axis=0)

    def means(self) -> dict[ChunkKind, Vectors]:
        """Mean token vectors of units and passages."""
        units = (self._sums / self._counts[:, None])[self._owners]
        return {"unit": units, "passage": _by_parent(units, self._counts[self._owners], self._parents)}


def _weighted(parts: Sequence[tuple[float, Vectors]]) -> Vectors:
    """Sums of rows by weight, at unit length."""
    first, *rest = (np.float32(w) * v for w, v in parts)
    mixed: Vectors = sum(rest, first)
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    return mixed


def _by_parent(units: Vectors, weights: NDArray[np.generic], parents: Sequence[int]) -> Vectors:
    """Means of consecutive rows of equal parent, weighted."""
    if not len(units):
        return units
    starts = np.searchsorted(parents, np.arange(parents[-1] + 1))
    scale = weights.astype(np.float32)
    total: Vectors = np.add.reduceat(units * scale[:, None], starts, axis=0)
    total /= np.add.reduceat(scale, starts)[:, None]
    return total
