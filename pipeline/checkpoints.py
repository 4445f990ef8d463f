"""What a finished stage leaves for whoever resumes the work: chunks and vectors as safetensors.

Each names what it was made with; for another tokenizer, chunker or embedder it is not taken.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pipeline.chunk import ChunkConfig
from pipeline.types import (
    Chunk,
    ChunkedDocument,
    ChunkKind,
    Document,
    DocumentEmbeddings,
    Encoding,
    Fingerprint,
)

_NOWHERE = -1  # a chunk of a document without pages


def encode_chunks(chunked: ChunkedDocument, fingerprint: Fingerprint, config: ChunkConfig) -> bytes:
    """Offsets of everything; the texts are in the document."""
    said = {
        "made": _made(fingerprint, config),
        "passages": json.dumps([chunk.section for chunk in chunked.passages]),
        "units": json.dumps([chunk.section for chunk in chunked.units]),
    }
    arrays = {
        "ids": chunked.encoding.ids,
        "offsets": chunked.encoding.offsets,
        "passages": _spans(chunked.passages),
        "units": _spans(chunked.units),
    }
    return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, said))


def decode_chunks(
    content: bytes, document: Document, fingerprint: Fingerprint, config: ChunkConfig
) -> ChunkedDocument | None:
    """The chunks of ``document``, or None if they were made otherwise."""
    arrays, said = _read(content)
    if said.get("made") != _made(fingerprint, config):
        return None
    return ChunkedDocument(
        document,
        Encoding(arrays["ids"], arrays["offsets"]),
        passages=_chunks("passage", document, arrays["passages"], json.loads(said["passages"])),
        units=_chunks("unit", document, arrays["units"], json.loads(said["units"])),
    )


def encode_vectors(made: DocumentEmbeddings) -> bytes:
    """Both kinds of vectors of a document."""
    arrays = {"passages": np.ascontiguousarray(made.passages), "units": np.ascontiguousarray(made.units)}
    return bytes(save(arrays, {"made": str(made.fingerprint), "windowing": made.windowing}))


def decode_vectors(
    content: bytes, chunked: ChunkedDocument, fingerprint: Fingerprint
) -> DocumentEmbeddings | None:
    """The vectors of ``chunked``, or None if they are of another embedder or of other chunks."""
    arrays, said = _read(content)
    if said.get("made") != str(fingerprint) or len(arrays.get("passages", ())) != len(chunked.passages):
        return None
    if len(arrays["units"]) != len(chunked.units):
        return None
    return DocumentEmbeddings(arrays["passages"], arrays["units"], fingerprint, said["windowing"])


def _made(fingerprint: Fingerprint, config: ChunkConfig) -> str:
    return "\n".join([str(fingerprint), *config.options()])


def _spans(chunks: tuple[Chunk, ...]) -> npt.NDArray[np.int64]:
    rows = [
        (
            chunk.parent,
            chunk.start,
            chunk.end,
            chunk.token_start,
            chunk.token_end,
            _NOWHERE if chunk.page_start is None else chunk.page_start,
            _NOWHERE if chunk.page_end is None else chunk.page_end,
        )
        for chunk in chunks
    ]
    return np.array(rows, np.int64).reshape(len(rows), 7)


def _chunks(
    kind: ChunkKind, document: Document, spans: npt.NDArray[np.int64], sections: list[str]
) -> tuple[Chunk, ...]:
    made = []
    for ordinal, (row, section) in enumerate(zip(spans.tolist(), sections, strict=True)):
        parent, start, end, token_start, token_end, first, last = row
        pages = (None, None) if first == _NOWHERE else (first, last)
        text = document.text[start:end]
        made.append(Chunk(kind, ordinal, parent, start, end, token_start, token_end, text, section, *pages))
    return tuple(made)


def _read(content: bytes) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Arrays and what was said of them; nothing for what is no such file."""
    try:
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")
        said = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    except (SafetensorError, ValueError):
        return {}, {}
    return arrays, said
