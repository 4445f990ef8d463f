"""Text Embeddings Inference: its token vectors (``/embed_all``) for late chunking, ``/embed`` for chunks.

As :mod:`embedders.late_chunking`, with the model on a server: the text goes there in overlapping windows,
the vectors of its tokens come back, and ``/tokenize`` says which characters they stand for. A passage's
own vector is the mean of its units' weighted by their tokens; titles have their share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from embedders._http import Server, ServerConfig, batches, matrix
from pipeline import titles
from pipeline.encoder.meter import Meter
from pipeline.encoder.windowing import Window, Windowing
from pipeline.errors import ConfigurationError, EmbeddingError
from pipeline.types import ChunkedDocument, DocumentEmbeddings, Embeddings, Encoding, Fingerprint

_PIECE_CHARS = 20_000
_SPECIAL_TOKENS = 4  # at most so many stand around a text
_MOST_TOKENS_A_CHARACTER = 4  # bytes

Vectors = NDArray[np.float32]


class Config(ServerConfig):
    """Where the server is, and how windows and weights are chosen."""

    url: str = "http://127.0.0.1:8080"
    """Address of the server."""
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
    allow_pooling_mismatch: bool = False
    """Average token vectors of a model that was not trained to be mean-pooled."""
    query_prompt: str = ""
    """Stands before every query."""
    document_prompt: str = ""
    """Stands before every window and chunk."""


TINY = Config(url="http://127.0.0.1:1", attempts=1)


def build(config: Config) -> TeiEmbedder:
    """Nothing is sent yet. Raises ConfigurationError for an address or file that cannot be used."""
    return TeiEmbedder(config, Server(config))


class TeiEmbedder:
    """Implements :class:`pipeline.seams.Embedder`."""

    def __init__(self, config: Config, server: Server) -> None:
        self._config, self._server = config, server

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What the server says of its model, with windows and weights.

        Raises ConfigurationError for a model whose token vectors are not to be averaged.
        """
        info, config = self._server.get("info"), self._config
        try:
            model, window = str(info["model_id"]), int(info["max_input_length"])
            pooling = str((info.get("model_type") or {}).get("embedding", {}).get("pooling", ""))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(
                f"{config.url} does not answer as Text Embeddings Inference: {str(info)[:200]}",
                remedy="Check embedder.url.",
            ) from error
        if self._late and pooling != "mean" and not config.allow_pooling_mismatch:
            raise ConfigurationError(
                f"Late chunking averages token vectors, but the server's model {model!r} pools by "
                f"{pooling!r}.",
                remedy="Set passage_late and unit_late to 0, or allow_pooling_mismatch.",
            )
        (vector,) = self._embedded(["width"])
        options = {
            "overlap_tokens": config.overlap_tokens,
            "passage_late": config.passage_late,
            "unit_late": config.unit_late,
            "passage_title": config.passage_title or "",
            "unit_title": config.unit_title or "",
            "query_prompt": config.query_prompt,
            "document_prompt": config.document_prompt,
        }
        said = tuple(sorted(f"{name}={value!r}" for name, value in options.items() if value != ""))
        revision = str(info.get("model_sha") or "unknown")
        return Fingerprint(model, revision, len(vector), pooling, window, options=said)

    def encode(self, text: str) -> Encoding:
        """The server's tokens, in pieces cut at white space."""
        pieces = list(_pieces(text))
        found = self._server.each(lambda at: self._tokens(text[at[0] : at[1]], special=False), pieces)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for (start, _), tokens in zip(pieces, found, strict=True):
            ids += [int(token["id"]) for token in tokens]
            offsets += [(start + token["start"], start + token["stop"]) for token in tokens]
        return Encoding(np.array(ids, np.int64).astype(np.int32), np.array(offsets, np.int32).reshape(-1, 2))

    def embed_queries(self, queries: Sequence[str]) -> Embeddings:
        """One vector a query. Raises EmbeddingError for an empty one."""
        for query in queries:
            if not query.strip():
                raise EmbeddingError(f"The query {query!r} is empty.", remedy="Ask something.")
        texts = [self._config.query_prompt + query for query in queries]
        names = [f"the query {query[:80]!r}" for query in queries]
        return Embeddings(self._own(texts, names, lambda _: None), self.fingerprint)

    def embed_documents(
        self, documents: Sequence[ChunkedDocument], progress: Callable[[int], None] | None = None
    ) -> list[DocumentEmbeddings]:
        """Vectors of every passage and unit. Raises EmbeddingError naming a chunk that has none."""
        tokens = sum(len(document.encoding) for document in documents)
        alone = min(self._config.passage_late, self._config.unit_late) < 1
        meter = Meter(tokens, tokens * (self._late + alone), progress)
        results = []
        for document in documents:
            names = [
                f"unit {u.ordinal} of {document.document.title!r} ({u.text[:60]!r})" for u in document.units
            ]
            plan = self._windowing.plan(len(document.encoding)) if self._late else []
            late = matrix(self._means(document, plan, meter), None, names) if plan else None
            prompt = self._config.document_prompt
            own = self._own([prompt + u.text for u in document.units], names, meter.add) if alone else None
            sizes = np.array([max(u.token_end - u.token_start, 1) for u in document.units], np.float32)
            parents = [u.parent for u in document.units]
            units = _mixed(late, own, self._config.unit_late)
            parts = [None if v is None else _by_parent(v, sizes, parents) for v in (late, own)]
            passages = _mixed(parts[0], parts[1], self._config.passage_late)
            heading = self._heading(document)
            if heading is not None:
                passages = _mixed(heading, passages, self._config.passage_title)
                units = _mixed(heading, units, self._config.unit_title)
            said = self._windowing.describe(plan)
            results.append(DocumentEmbeddings(passages, units, self.fingerprint, said))
        meter.close()
        return results

    @property
    def _late(self) -> bool:
        return max(self._config.passage_late, self._config.unit_late) > 0

    @cached_property
    def _windowing(self) -> Windowing:
        prompt = self._config.document_prompt
        taken = _SPECIAL_TOKENS + (len(self._tokens(prompt, special=False)) if prompt else 0)
        return Windowing(self.fingerprint.window_tokens - taken, self._config.overlap_tokens)

    def _heading(self, document: ChunkedDocument) -> Vectors | None:
        """The vector ``(1, D)`` of a title that has a share and is not in the text, of the part that surely
        fits a window."""
        title = titles.telling(document.document.title, document.document.text)
        asked = self._config.passage_title or self._config.unit_title
        if not (asked and document.units and title):
            return None
        part = title[: self.fingerprint.window_tokens // _MOST_TOKENS_A_CHARACTER]
        return self._own([self._config.document_prompt + part], [f"the title {title!r}"], lambda _: None)

    def _means(self, document: ChunkedDocument, plan: Sequence[Window], meter: Meter) -> Vectors:
        """Mean token vectors ``(units, D)``; a unit without tokens has those of the unit before it."""
        starts = np.array([unit.start for unit in document.units])
        sums = np.zeros((len(starts), self.fingerprint.dim), np.float32)
        counts = np.zeros(len(starts), np.float32)
        seen = self._server.each(lambda window: self._window(document, window), list(plan))
        for window, (places, vectors) in zip(plan, seen, strict=True):
            owners = np.maximum(np.searchsorted(starts, places, "right") - 1, 0)
            np.add.at(sums, owners, vectors)
            np.add.at(counts, owners, 1)
            meter.add(window.keep_stop - window.keep_start)
        has = np.flatnonzero(counts)
        if not len(has):
            raise EmbeddingError(
                f"The server gives no token vectors for {document.document.title!r}.",
                remedy="Set passage_late and unit_late to 0.",
            )
        source = has[np.maximum(np.searchsorted(has, np.arange(len(starts)), "right") - 1, 0)]
        return np.asarray((sums / np.maximum(counts, 1)[:, None])[source], np.float32)

    def _window(self, document: ChunkedDocument, window: Window) -> tuple[NDArray[np.int64], Vectors]:
        """Where the tokens that count begin, in characters of the document, and their vectors."""
        text, offsets = document.document.text, document.encoding.offsets
        first, last = int(offsets[window.start, 0]), int(offsets[window.stop - 1, 1])
        prompt = self._config.document_prompt
        sent = prompt + text[first:last]
        tokens = self._tokens(sent, special=True)
        (vectors,) = self._server.post("embed_all", {"inputs": [sent], "truncate": False})
        if len(vectors) != len(tokens):
            raise EmbeddingError(
                f"The server gives {len(vectors)} vectors for {len(tokens)} tokens of "
                f"{document.document.title!r}.",
                remedy="Set passage_late and unit_late to 0.",
            )
        begins = int(offsets[window.keep_start, 0])
        ends = int(offsets[window.keep_stop, 0]) if window.keep_stop < len(offsets) else len(text)
        places, kept = [], []
        for token, vector in zip(tokens, vectors, strict=True):
            if token.get("special") or token["start"] is None or token["start"] < len(prompt):
                continue
            at = first + token["start"] - len(prompt)
            if begins <= at < ends:
                places.append(at)
                kept.append(vector)
        width = self.fingerprint.dim
        return np.array(places, np.int64), np.array(kept, np.float32).reshape(-1, width)

    def _own(self, texts: Sequence[str], names: Sequence[str], done: Callable[[int], None]) -> Vectors:
        if not texts:
            return np.empty((0, self.fingerprint.dim), np.float32)
        dim = self.fingerprint.dim
        sizes = [max(len(text) // 4, 1) for text in texts]  # a token has about four characters
        runs = batches(sizes, self._config.batch_texts, self._config.batch_tokens)
        parts = []
        asked = self._server.each(lambda run: self._embedded([texts[i] for i in run]), runs)
        for run, rows in zip(runs, asked, strict=True):
            parts.append(matrix(rows, dim, [names[i] for i in run]))
            done(sum(sizes[i] for i in run))
        return np.concatenate(parts)

    def _embedded(self, texts: list[str]) -> list[list[float]]:
        rows: list[list[float]] = self._server.post("embed", {"inputs": texts, "truncate": False})
        return rows

    def _tokens(self, text: str, *, special: bool) -> list[dict[str, Any]]:
        answer = self._server.post("tokenize", {"inputs": [text], "add_special_tokens": special})
        try:
            (tokens,) = answer
            return [token for token in tokens if special or not token["special"]]
        except (KeyError, TypeError, ValueError) as error:
            raise EmbeddingError(
                f"{self._config.url} gives no tokens with offsets: {str(answer)[:200]}",
                remedy="It must be Text Embeddings Inference 1.2 or later.",
            ) from error


def _mixed(first: Vectors | None, second: Vectors | None, weight: float) -> Vectors:
    """Rows of length 1 of both, the first by its weight and the second by the rest, at unit length; one row
    goes with every row of the other."""
    if second is None or (weight == 1 and first is not None):
        mixed = np.empty((0, 0), np.float32) if first is None else first
    elif first is None or weight == 0:
        mixed = second
    else:
        mixed = np.float32(weight) * first + np.float32(1 - weight) * second
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), np.float32)


def _by_parent(units: Vectors, sizes: Vectors, parents: Sequence[int]) -> Vectors:
    """Unit vectors of passages: means of their units weighted by tokens."""
    if not parents:
        return units
    total = np.zeros((parents[-1] + 1, units.shape[1]), np.float32)
    np.add.at(total, np.array(parents), units * sizes[:, None])
    return np.asarray(total / np.linalg.norm(total, axis=1, keepdims=True), np.float32)


def _pieces(text: str) -> list[tuple[int, int]]:
    """Spans of about 20,000 characters, from white space to white space."""
    edges = [0]
    while len(text) - edges[-1] > 2 * _PIECE_CHARS:
        start = edges[-1] + _PIECE_CHARS
        found = next(
            (i for i in range(start, start + _PIECE_CHARS) if text[i].isspace()), start + _PIECE_CHARS
        )
        edges.append(found)
    return list(zip(edges, [*edges[1:], len(text)], strict=True)) if text else []
