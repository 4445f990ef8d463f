"""Any server that speaks ``POST /v1/embeddings`` as OpenAI does: vLLM, Ollama, LiteLLM, Jina, OpenAI.

Each chunk is embedded alone, unless ``late_chunking`` is on for a server that has Jina's field of that
name: then the chunks of a document travel together, as many as the window holds, and the server pools
each from one pass over all. Tokens are counted with ``tokenizer`` where it is given, else one a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from embedders import hashing
from embedders._http import Server, ServerConfig, batches, matrix
from pipeline.encoder.meter import Meter
from pipeline.encoder.windowing import ALONE
from pipeline.errors import ConfigurationError, EmbeddingError
from pipeline.types import Chunk, ChunkedDocument, DocumentEmbeddings, Embeddings, Encoding, Fingerprint

Vectors = NDArray[np.float32]


class Config(ServerConfig):
    """Which server and model, and what is sent."""

    url: str = "https://api.openai.com/v1"
    """Address of the server, up to and with `/v1`."""
    model: str = "text-embedding-3-small"
    """The model's name, as the server knows it."""
    dim: int | None = Field(default=None, ge=8)
    """Width to ask for (sent as `dimensions`); null takes what comes, found out by one request."""
    window_tokens: int = Field(default=8192, ge=16)
    """Most tokens that the model reads at once."""
    tokenizer: Path | None = None
    """Folder with a `tokenizer.json` to count and cut with; null counts words."""
    late_chunking: bool = False
    """Send `late_chunking`: the chunks of a document in one request, for servers that have it."""
    query_prompt: str = ""
    """Stands before every query."""
    document_prompt: str = ""
    """Stands before every chunk."""
    query_fields: Mapping[str, Any] = Field(default_factory=dict)
    """Further fields of requests for queries, such as `{"task": "retrieval.query"}`."""
    document_fields: Mapping[str, Any] = Field(default_factory=dict)
    """Further fields of requests for documents."""


TINY = Config(url="http://127.0.0.1:1/v1", model="tiny", attempts=1)


def build(config: Config) -> OpenAIEmbedder:
    """Nothing is sent yet. Raises ConfigurationError for an address or file that cannot be used."""
    return OpenAIEmbedder(config, Server(config))


class OpenAIEmbedder:
    """Implements :class:`pipeline.seams.Embedder`."""

    def __init__(self, config: Config, server: Server) -> None:
        self._config, self._server = config, server
        self._tokenizer = _tokenizer(config.tokenizer)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Server, model and everything sent. Asks the server for the width unless the settings say it."""
        config = self._config
        dim = config.dim or len(self._request(["width"], config.document_fields, late=False)[0])
        options = {
            "server": config.url,
            "query_prompt": config.query_prompt,
            "document_prompt": config.document_prompt,
            "query_fields": dict(sorted(config.query_fields.items())),
            "document_fields": dict(sorted(config.document_fields.items())),
            "late_chunking": config.late_chunking,
        }
        said = tuple(sorted(f"{name}={value!r}" for name, value in options.items() if value))
        return Fingerprint(config.model, "remote", dim, "remote", config.window_tokens, options=said)

    def encode(self, text: str) -> Encoding:
        """Tokens of the tokenizer given, else words."""
        return self._tokenizer(text)

    def embed_queries(self, queries: Sequence[str]) -> Embeddings:
        """One vector a query. Raises EmbeddingError for an empty one."""
        for query in queries:
            if not query.strip():
                raise EmbeddingError(f"The query {query!r} is empty.", remedy="Ask something.")
        texts = [self._config.query_prompt + query for query in queries]
        names = [f"the query {query[:80]!r}" for query in queries]
        fields = self._config.query_fields
        return Embeddings(self._vectors(texts, names, fields, lambda _: None), self.fingerprint)

    def embed_documents(
        self, documents: Sequence[ChunkedDocument], progress: Callable[[int], None] | None = None
    ) -> list[DocumentEmbeddings]:
        """Vectors of every passage and unit. Raises EmbeddingError naming a chunk that has none."""
        tokens = sum(len(document.encoding) for document in documents)
        meter = Meter(tokens, 2 * tokens, progress)
        results = []
        for document in documents:
            found, said = [], ALONE + ": the server gives one vector a text"
            for chunks in (document.passages, document.units):
                if self._config.late_chunking:
                    vectors, requests = self._late(document, chunks, meter)
                    said = f"{requests} requests with late chunking in the server"
                else:
                    texts = [self._config.document_prompt + chunk.text for chunk in chunks]
                    names = [_named(document, chunk) for chunk in chunks]
                    vectors = self._vectors(texts, names, self._config.document_fields, meter.add)
                found.append(vectors)
            results.append(DocumentEmbeddings(found[0], found[1], self.fingerprint, said))
        meter.close()
        return results

    def _late(self, document: ChunkedDocument, chunks: Sequence[Chunk], meter: Meter) -> tuple[Vectors, int]:
        """As many consecutive chunks as the window holds in each request."""
        sizes = [max(chunk.token_end - chunk.token_start, 1) for chunk in chunks]
        runs = batches(sizes, 2048, self._config.window_tokens)

        def ask(run: range) -> Vectors:
            some = [chunks[i] for i in run]
            fields = self._config.document_fields
            rows = self._request([chunk.text for chunk in some], fields, late=True)
            return matrix(rows, self.fingerprint.dim, [_named(document, chunk) for chunk in some])

        parts = []
        for run, vectors in zip(runs, self._server.each(ask, runs), strict=True):
            parts.append(vectors)
            meter.add(sum(sizes[i] for i in run))
        return (np.concatenate(parts) if parts else self._none()), len(runs)

    def _vectors(
        self,
        texts: Sequence[str],
        names: Sequence[str],
        fields: Mapping[str, Any],
        done: Callable[[int], None],
    ) -> Vectors:
        if not texts:
            return self._none()
        sizes = [len(self.encode(text)) for text in texts]
        runs = batches(sizes, self._config.batch_texts, self._config.batch_tokens)

        def ask(run: range) -> Vectors:
            rows = self._request([texts[i] for i in run], fields, late=False)
            return matrix(rows, self.fingerprint.dim, [names[i] for i in run])

        self.fingerprint  # noqa: B018 - found out once, before several threads ask
        parts = []
        for run, vectors in zip(runs, self._server.each(ask, runs), strict=True):
            parts.append(vectors)
            done(sum(sizes[i] for i in run))
        return np.concatenate(parts)

    def _none(self) -> Vectors:
        return np.empty((0, self.fingerprint.dim), np.float32)

    def _request(self, texts: list[str], fields: Mapping[str, Any], *, late: bool) -> list[list[float]]:
        body: dict[str, Any] = {
            "model": self._config.model,
            "input": texts,
            "encoding_format": "float",
            **fields,
        }
        if self._config.dim is not None:
            body["dimensions"] = self._config.dim
        if late:
            body["late_chunking"] = True
        answer = self._server.post("embeddings", body)
        try:
            ordered = sorted(answer["data"], key=lambda item: int(item["index"]))
            return [item["embedding"] for item in ordered]
        except (KeyError, TypeError, ValueError) as error:
            raise EmbeddingError(
                f"The answer of {self._config.url} is not that of an embeddings endpoint: "
                f"{str(answer)[:200]}",
                remedy="Check embedder.url: it usually ends in /v1.",
            ) from error


def _named(document: ChunkedDocument, chunk: Chunk) -> str:
    return f"{chunk.kind} {chunk.ordinal} of {document.document.title!r} ({chunk.text[:60]!r})"


def _tokenizer(folder: Path | None) -> Callable[[str], Encoding]:
    if folder is None:
        return hashing.build(hashing.Config()).encode
    if not (folder / "tokenizer.json").is_file():
        raise ConfigurationError(
            f"{str(folder)!r} has no tokenizer.json.", remedy="Name a folder that has one, or leave it out."
        )
    from pipeline.encoder.folder import EncoderFolder
    from pipeline.encoder.tokens import TextTokenizer

    return TextTokenizer(EncoderFolder(folder, {}, dim=0, positions=0)).encode
